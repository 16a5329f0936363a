"""What the command line tells of a server."""

import re

from command_line import here, record, refold


def test_a_password_is_never_told(place: str) -> None:
    record(place)
    password = place.partition("://refold:")[2].partition("@")[0]
    assert password
    for words in (["status"], ["doctor", "--json"], ["runs", "--at", "99"], ["show", "run", "9"]):
        done = here(*words, "--store", place)
        assert done.out + done.err
        assert password not in done.out + done.err


def test_the_doctor_tells_of_the_server(place: str) -> None:
    record(place)
    done = refold("doctor", env={"REFOLD_STORE": place})
    assert done.code == 1  # of the workers one has been silent for years
    assert re.search(r"^fact +engine +PostgreSQL \d", done.out, re.M)
    assert re.search(
        r"^fact +server +schema \S+ of .* in database \S+ of .*, as \S+,", done.out, re.M
    )
    assert re.search(r"^fact +settings +fsync \w+, full_page_writes \w+,", done.out, re.M)
    assert re.search(r"^ok +log +every event has its digest", done.out, re.M)
