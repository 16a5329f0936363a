"""Payloads of what a script defines: another process reads them, and the same one gets its own."""

import dataclasses
import enum
import io
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from refold.eventstore.errors import InvalidPayload
from refold.eventstore.payloads import decode_db_payload, encode_payload
from refold.eventstore.payloads.scripts import make_function

TOP = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REFOLD_PAYLOAD_KEY", raising=False)


def run(script: Path, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", script, *args],
        env={"PYTHONPATH": f"{TOP}:{script.parent}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- a script writes, another reads -----------------------------------------------------------

PROJECT = """
import threading
LOCK = threading.Lock()
UNPICKLABLE = (i for i in [])
def twice(x): return 2 * x
"""

WRITER = """
import abc, collections, dataclasses, enum, functools, pathlib, sys, typing
import project
from refold.eventstore.payloads import decode_db_payload, encode_payload

UNPICKLABLE = (i for i in [])

class Stage(enum.Enum):
    TRAIN = "train"
    TEST = "test"
    ALSO_TRAIN = "train"
    @property
    def short(self): return self.value[:2]
    @classmethod
    def _missing_(cls, value): return cls.TEST

class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2

class Options(enum.Flag):
    A = enum.auto()
    B = enum.auto()

class Planet(enum.Enum):
    EARTH = (1, 2)
    def __init__(self, mass, radius): self.mass = mass

@dataclasses.dataclass
class Config:
    lr: float = 0.1
    tags: list = dataclasses.field(default_factory=list)
    stage: Stage = Stage.TRAIN
    def half(self): return half(self.lr)

@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: int
    y: int = 2

class Base(abc.ABC):
    @abc.abstractmethod
    def name(self): ...
    def shown(self): return f"<{self.name()}>"

class Child(Base):
    COUNT = 3
    def name(self): return super().__class__.__name__
    def shown(self): return super().shown() + str(Child.COUNT)
    @staticmethod
    def twice(x): return project.twice(x)
    @classmethod
    def make(cls): return cls()
    @property
    def five(self): return 5

class Point(typing.NamedTuple):
    x: int
    y: int = 2
    def norm(self): return self.x + self.y

T = typing.TypeVar("T", bound=float)

class Box(typing.Generic[T]):
    def __init__(self, item: T): self.item = item

class Registered:
    def __init__(self, name): self.name = name
Registered.DEFAULT = Registered("default")

class Left:
    def other(self): return Right()
class Right:
    def other(self): return Left()

class Meta(type):
    def hello(cls): return "hello"
class WithMeta(metaclass=Meta): pass

class Slots:
    __slots__ = ("a", "b")
    def __init__(self): self.a = 1

class Failure(Exception):
    def __init__(self, why): super().__init__(why); self.why = why

class Missing(dict):
    def __missing__(self, key): return half(key)

def half(x): return x / 2
def even(n): return True if n == 0 else odd(n - 1)
def odd(n): return False if n == 0 else even(n - 1)
def counter():
    n = 0
    def up():
        nonlocal n
        n += 1
        return n
    def now(): return n
    return up, now
def local(n):
    class Local:
        def get(self): return n
    return Local()
def decorated(function):
    @functools.wraps(function)
    def wrapper(*args): return function(*args) + 1
    return wrapper
@decorated
def three(): return 2

OBJECTS = {
    "enum": [Stage.TRAIN, Stage.TEST],
    "int enum": [Level.HIGH],
    "flag": [Options.A | Options.B],
    "planet": [Planet.EARTH],
    "dataclass": [Config(0.5)],
    "frozen": [Frozen(1)],
    "abstract": [Child(), Child],
    "named tuple": [Point(1)],
    "generic": [Box(1.0), Box[float]],
    "refers to itself": [Registered("one")],
    "refer to each other": [Left(), Right()],
    "metaclass": [WithMeta],
    "slots": [Slots()],
    "exception": [Failure("why")],
    "dict": [Missing(a=1)],
    "lambda": [lambda x: half(x) + project.twice(x)],
    "recursion": [even],
    "closure": list(counter()),
    "decorated": [three],
    "partial": [functools.partial(half, 4)],
    "bound": [Config(0.5).half],
    "local": [local(3)],
    "default": collections.defaultdict(lambda: 5, a=1),
}

if __name__ == "__main__":
    for name, value in OBJECTS.items():
        data = encode_payload(value)
        pathlib.Path(sys.argv[1], name).write_bytes(data)
        back = decode_db_payload(data)
        for one, other in zip(value, back):
            if not callable(one):
                assert type(one) is type(other), name
    assert decode_db_payload(encode_payload(OBJECTS["dataclass"])) == OBJECTS["dataclass"]
    assert decode_db_payload(encode_payload(Stage.TRAIN)) is Stage.TRAIN
"""

READER = """
import dataclasses, pathlib, sys
from refold.eventstore.payloads import decode_db_payload

def read(name):
    return decode_db_payload(pathlib.Path(sys.argv[1], name).read_bytes())

train, test = read("enum")
Stage = type(train)
assert list(Stage) == [train, test] and Stage.ALSO_TRAIN is train and Stage("test") is test
assert train.short == "tr" and train.name == "TRAIN" and Stage("unknown") is test
assert read("int enum") == [2] and read("int enum")[0].name == "HIGH"
[both] = read("flag")
assert both.value == 3 and type(both).A in both and ~type(both).A is type(both).B
assert read("planet")[0].mass == 1
[config] = read("dataclass")
assert config.half() == 0.25 and config.stage.name == "TRAIN" and type(config)().tags == []
assert [field.name for field in dataclasses.fields(config)] == ["lr", "tags", "stage"]
assert dataclasses.replace(config, lr=1) == type(config)(1) and repr(config).startswith("Config(")
assert type(read("dataclass")[0]) is type(config), "one class in one process"
[frozen] = read("frozen")
assert dataclasses.asdict(frozen) == {"x": 1, "y": 2} and hash(frozen) == hash(type(frozen)(1))
child, Child = read("abstract")
assert child.shown().endswith("3") and Child.twice(2) == 4 and type(Child.make()) is Child
assert child.five == 5 and type(child) is Child and not Child.__abstractmethods__
try:
    Child.__base__()
except TypeError:
    pass
else:
    raise AssertionError("the base class is abstract")
[point] = read("named tuple")
assert point == (1, 2) and point.norm() == 3 and point._replace(x=5).x == 5
box, Box = read("generic")
assert box.item == 1.0 and Box(2).item == 2
[one] = read("refers to itself")
assert type(one).DEFAULT.name == "default" and type(type(one).DEFAULT) is type(one)
left, right = read("refer to each other")
assert type(left.other()) is type(right) and type(right.other()) is type(left)
assert read("metaclass")[0].hello() == "hello"
[slots] = read("slots")
assert slots.a == 1 and not hasattr(slots, "b") and not hasattr(slots, "__dict__")
assert read("exception")[0].why == "why"
assert read("dict")[0][4] == 2
assert read("lambda")[0](4) == 10
assert read("recursion")[0](10)
up, now = read("closure")
assert (up(), up(), now()) == (1, 2, 2)
assert read("decorated")[0]() == 3 and read("decorated")[0].__name__ == "three"
assert read("partial")[0]() == 2
assert read("bound")[0]() == 0.25
assert read("local")[0].get() == 3
assert read("default")["new"] == 5
print("all read")
"""


def test_what_a_script_defines_is_read_by_another_process(tmp_path: Path) -> None:
    (tmp_path / "project.py").write_text(PROJECT)
    written = tmp_path / "written"
    written.mkdir()
    for name, code in {"writer.py": WRITER, "reader.py": READER}.items():
        (tmp_path / name).write_text(code)
    run(tmp_path / "writer.py", str(written))
    assert run(tmp_path / "reader.py", str(written)) == "all read\n"


RESUMED = """
import dataclasses, pathlib, sys
from refold.eventstore.payloads import decode_db_payload, encode_payload

@dataclasses.dataclass
class Config:
    lr: float

path = pathlib.Path(sys.argv[1])
if not path.exists():
    path.write_bytes(encode_payload({"config": Config(0.1)}))
print(decode_db_payload(path.read_bytes()) == {"config": Config(0.1)})
"""


def test_a_script_that_runs_again_gets_its_own_classes(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(RESUMED)
    (tmp_path / "other.py").write_text(RESUMED)
    payload = str(tmp_path / "payload")
    assert run(tmp_path / "train.py", payload) == "True\n"
    assert run(tmp_path / "train.py", payload) == "True\n"
    assert run(tmp_path / "other.py", payload) == "False\n", "its Config is another class"


CACHED = """
import functools, pathlib, sys
from refold.eventstore.payloads import encode_payload

class Config:
    @functools.cached_property
    def schedule(self): return [0.1] * 2

pathlib.Path(sys.argv[1]).write_bytes(encode_payload(Config()))
"""

CACHED_READER = """
import pathlib, sys
from refold.eventstore.payloads import decode_db_payload
print(decode_db_payload(pathlib.Path(sys.argv[1]).read_bytes()).schedule)
"""


def test_a_cached_property_of_a_script_does_not_hang_where_it_is_read(tmp_path: Path) -> None:
    """Up to Python 3.11 it holds an RLock."""
    (tmp_path / "writer.py").write_text(CACHED)
    (tmp_path / "reader.py").write_text(CACHED_READER)
    payload = str(tmp_path / "payload")
    run(tmp_path / "writer.py", payload)
    assert run(tmp_path / "reader.py", payload) == "[0.1, 0.1]\n"


# --- a package hides the module of a class ------------------------------------------------------

LIBRARY = """
class Opt:
    def step(self): return "version 1"
class opt(Opt): pass
def make(): return "version 1"
"""

LIBRARY_WRITER = """
import pathlib, sys
import library
from refold.eventstore.payloads import encode_payload
value = [library.Opt(), library.lower(), library.make, library.Opt]
pathlib.Path(sys.argv[1]).write_bytes(encode_payload(value))
"""

LIBRARY_READER = """
import pathlib, sys
import library
from refold.eventstore.payloads import decode_db_payload
one, lower, make, Opt = decode_db_payload(pathlib.Path(sys.argv[1]).read_bytes())
assert type(one) is Opt is library.Opt and type(lower) is library.lower and make is library.make
print(one.step(), lower.step(), make())
"""


@pytest.mark.parametrize("hidden", ["del opt", "def opt(): ...", "opt = lower", "pass"])
def test_what_can_be_imported_travels_by_name(tmp_path: Path, hidden: str) -> None:
    library = tmp_path / "library"
    library.mkdir()
    init = f"from .opt import Opt, make, opt as lower\n{hidden}\n"
    (library / "__init__.py").write_text(init)
    (library / "opt.py").write_text(LIBRARY)
    (tmp_path / "writer.py").write_text(LIBRARY_WRITER)
    (tmp_path / "reader.py").write_text(LIBRARY_READER)
    payload = str(tmp_path / "payload")
    run(tmp_path / "writer.py", payload)
    (library / "opt.py").write_text(LIBRARY.replace("version 1", "version two"))
    assert run(tmp_path / "reader.py", payload) == "version two version two version two\n"


# --- in one process -----------------------------------------------------------------------------


def test_classes_of_a_function_come_back_as_themselves() -> None:
    @dataclasses.dataclass
    class Local:
        x: int
        more: Any = None

    class Kind(enum.Enum):
        A = 1

    value = [Local(1, Kind.A), {"deep": Local(2)}]
    assert decode_db_payload(encode_payload(value)) == value


MARKS: list[str] = []


def test_a_function_of_a_module_keeps_to_the_globals_of_the_module() -> None:
    nothing = None

    def mark() -> Any:
        MARKS.append("called")
        return nothing

    back = decode_db_payload(encode_payload([mark, mark]))
    assert back[0] is back[1]
    assert back[0]() is None
    assert MARKS == ["called"]


def test_a_class_that_only_its_library_can_make_is_refused() -> None:
    class Local(msgspec.Struct):
        x: int

    with pytest.raises(InvalidPayload, match=r"Local.*StructMeta.*to a module"):
        encode_payload([Local(1)])


ENUM_HEX = (
    "fa013afde7ec000000000000015793c5015180059546010000000000005d948c226576656e7473746f72652e70"
    "61796c6f6164732e7363726970745f636c6173736573948c0a6d616b655f636c617373949394288c2062656139"
    "35343763616138383430633439393763326335333461353666396661948c08747261696e2e7079948c05537461"
    "676594879463656e756d0a456e756d4d6574610a68068c04656e756d948c04456e756d94939485947d94288c0a"
    "5f5f6d6f64756c655f5f948c085f5f6d61696e5f5f948c0c5f5f7175616c6e616d655f5f946806757d948c0554"
    "5241494e948c05747261696e94737494529468018c0a66696c6c5f636c61737394939468147d948c075f5f646f"
    "635f5f944e737d9468117d94288c075f76616c75655f9468128c065f6e616d655f9468118c0c5f5f6f626a636c"
    "6173735f5f9468148c0c5f736f72745f6f726465725f944b0075738694865230681285945294612e9090"
)


def test_a_class_of_a_script_of_version_1_is_read() -> None:
    [stage] = decode_db_payload(bytes.fromhex(ENUM_HEX))
    assert isinstance(stage, enum.Enum)
    assert repr(stage) == "<Stage.TRAIN: 'train'>"


def test_code_of_another_python_is_refused() -> None:
    with pytest.raises(InvalidPayload, match=r"Python 3\.2"):
        make_function((3, 2), (lambda: None).__code__, None, "train", None)


# --- what cannot be stored ------------------------------------------------------------------


def a_socket() -> Any:
    return socket.socket()


def a_generator() -> Any:
    return (i for i in range(3))


def an_open_file() -> Any:
    return open(__file__)


class Holder:
    def __init__(self, held: Any) -> None:
        self.held = held

    def __enter__(self) -> Any:
        return self.held

    def __exit__(self, *error: object) -> None:
        self.held.close()


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (a_socket, "socket.socket"),
        (a_generator, "generator"),
        (an_open_file, "TextIOWrapper"),
    ],
)
def test_what_cannot_be_pickled_is_refused_by_name(make: Callable[[], Any], named: str) -> None:
    with Holder(make()) as held, pytest.raises(InvalidPayload, match=named) as refused:
        encode_payload({"config": {"lr": 0.1}, "held": [held]})
    assert "store the data" in str(refused.value)


def test_a_lock_comes_back_as_a_new_lock() -> None:
    back = decode_db_payload(encode_payload({"lock": threading.Lock()}))["lock"]
    assert back.acquire(blocking=False)


def held(lock: Any) -> Any:
    lock.acquire()
    return lock


@pytest.mark.parametrize(
    ("make", "lock_of"),
    [
        (threading.Lock, lambda lock: lock),
        (lambda: held(threading.Lock()), lambda lock: lock),
        (threading.RLock, lambda lock: lock),
        (lambda: held(threading.RLock()), lambda lock: lock),
        (threading.Condition, lambda condition: condition),
        (lambda: held(threading.Condition()), lambda condition: condition),
        (Future, lambda future: future._condition),
        (lambda: logging.StreamHandler(sys.__stderr__), lambda handler: handler.lock),
    ],
    ids=[
        *("lock", "held lock", "reentrant", "held reentrant"),
        *("condition", "held condition", "future", "handler"),
    ],
)
def test_locks_come_back_free(make: Callable[[], Any], lock_of: Callable[[Any], Any]) -> None:
    back = lock_of(decode_db_payload(encode_payload([make()]))[0])
    with ThreadPoolExecutor() as elsewhere:
        assert elsewhere.submit(back.acquire, False).result()


def test_streams_that_every_process_has_can_be_stored() -> None:
    streams = [sys.stdout, sys.__stdout__, sys.stderr]
    assert decode_db_payload(encode_payload(streams)) == streams
    assert decode_db_payload(encode_payload(io.BytesIO(b"data"))).getvalue() == b"data"


class Broken:
    text = "no number"

    def __reduce__(self) -> Any:
        return int, (self.text,)


def test_an_object_that_cannot_be_read_again_is_not_written() -> None:
    with pytest.raises(InvalidPayload, match=r"Broken .* not unpickled.*no number"):
        encode_payload(Broken())


def _number(text: str) -> int:
    return int(text) if _numbers else int("no number")


_numbers = True


class Number:
    def __reduce__(self) -> Any:
        return _number, ("1",)


def test_an_object_that_fails_on_reading_is_an_invalid_payload(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = encode_payload(Number())
    monkeypatch.setitem(globals(), "_numbers", False)
    with pytest.raises(InvalidPayload, match="no number"):
        decode_db_payload(data)
