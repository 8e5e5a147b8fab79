"""Locks, and folders that are filled aside: what holds where a file system or a machine is odd."""

import errno
import fcntl
import gc
import json
import os

import pytest

from robo_rl import locks
from robo_rl.locks import Aside, Lock, Locked, Occupied


def _free(path):
    """Whether somebody else could take the lock."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".lock"


def test_a_lock_is_held_until_its_last_user_lets_go(path):
    first, second = Lock(path), Lock(path)
    first.release()
    first.release()
    assert not _free(path)
    second.release()
    assert _free(path)


def test_a_lock_that_is_forgotten_is_free(path):
    Lock(path)
    gc.collect()
    assert _free(path)


def test_the_file_says_who_holds_it(path):
    lock = Lock(path)
    about = json.loads(path.read_text(encoding="utf-8"))
    assert about["pid"] == os.getpid()
    assert about.keys() == {"pid", "host", "since"}
    lock.release()


@pytest.mark.parametrize("said", ["", "{", "[1]", '{"pid": 12}'])
def test_a_holder_that_has_not_said_who_it_is_is_another_process_all_the_same(path, said):
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.write(descriptor, said.encode())
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(Locked, match=r"another process is writing to .*(: process 12)?\. Wait"):
        Lock(path)
    os.close(descriptor)
    Lock(path).release()


def test_where_there_are_no_locks_one_is_warned_and_goes_on(path, monkeypatch, caplog):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    lock = Lock(path)
    assert "this file system has no locks (No locks available)" in caplog.text
    lock.release()


def test_what_a_dead_owner_of_this_machine_left_goes_and_nothing_else(tmp_path):
    for name, host in (("dead", locks.socket.gethostname()), ("elsewhere", "another-machine")):
        (tmp_path / f".x-{name}").mkdir()
        text = json.dumps({"host": host})
        (tmp_path / f".x-{name}" / ".lock").write_text(text, encoding="utf-8")
    (tmp_path / ".x-unmarked").mkdir()
    (tmp_path / "mine").mkdir()
    with Aside(tmp_path, ".x-") as living:
        locks.sweep(tmp_path, ".x-")
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {".x-elsewhere", ".x-unmarked", "mine", living.folder.name}


def test_a_folder_is_put_in_place_once_and_without_its_lock(tmp_path):
    for number in range(2):
        with Aside(tmp_path, ".x-") as aside:
            (aside.folder / "content").write_text(str(number), encoding="utf-8")
            if number:
                with pytest.raises(Occupied):
                    aside.publish(tmp_path / "target")
            else:
                aside.publish(tmp_path / "target")
    assert os.listdir(tmp_path) == ["target"]
    assert os.listdir(tmp_path / "target") == ["content"]
    assert (tmp_path / "target" / "content").read_text(encoding="utf-8") == "0"
