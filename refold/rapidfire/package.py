"""What is used of the package rapidfireai as it is installed; nothing of it is copied.

Type checkers need not have it: here alone it is imported.
"""

from importlib import import_module
from typing import Any, cast

from refold.eventstore.errors import MissingPackage
from refold.rapidfire import check_version

DBException = cast("type[Exception]", import_module("rapidfireai.fit.utils.exceptions").DBException)
"""RapidFire's exception, which its code catches and whose `.message` it reads."""

try:
    VERSION = check_version()
except MissingPackage as error:
    raise DBException(str(error)) from error

PLACE: str = import_module("rapidfireai.utils.constants").RF_DB_PATH
"""The folder of RapidFire's databases."""

fit: Any = import_module("rapidfireai.fit.utils.constants")
"""Training's words: the enums that its layer takes and returns."""


def inference() -> Any:
    """Return inference's words; training gets along without what these import."""
    return import_module("rapidfireai.evals.utils.constants")


def config_json(pipeline_config: Any) -> Any:
    """Return what of a pipeline's configuration people see."""
    serialize = import_module("rapidfireai.evals.utils.serialize")
    return serialize.extract_pipeline_config_json(pipeline_config)


def decoded(text: str) -> Any:
    """Return the object that RapidFire has encoded as a text of its databases."""
    return import_module("rapidfireai.fit.utils.serialize").decode_db_payload(text)
