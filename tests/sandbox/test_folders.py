"""Work folders: removed whatever became of them, and never through a link."""

import os
import stat
import time
from pathlib import Path

import pytest
from codesieve.sandbox import folders


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "made")


def test_the_work_folder_lies_in_a_folder_of_ours(folder):
    folders.make(folder, None)
    assert [path.name for path in Path(folder).iterdir()] == ["work"]
    assert [stat.S_IMODE(Path(path).stat().st_mode) for path in (folder, folders.work_in(folder))] == [0o700, 0o700]
    folders.remove(folder)
    assert not Path(folder).exists()
    folders.remove(folder)  # nothing is there


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder to another user")
def test_another_user_owns_its_work_folder_and_may_only_pass_the_one_above(folder):
    folders.make(folder, 2_000_000_000)
    assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o711
    assert Path(folder).stat().st_uid == os.geteuid()
    assert Path(folders.work_in(folder)).stat().st_uid == 2_000_000_000


def test_a_folder_that_is_there_is_not_taken(folder):
    Path(folder).mkdir()
    with pytest.raises(FileExistsError):
        folders.make(folder, None)


def test_links_are_removed_and_not_followed(folder, tmp_path):
    outside = tmp_path / "outside"
    (outside / "below").mkdir(parents=True)
    (outside / "below" / "file").write_text("kept")
    outside.chmod(0o751)
    folders.make(folder, None)
    work = Path(folders.work_in(folder))
    (work / "a").mkdir()
    (work / "a" / "link").symlink_to(outside)
    work.rename(work.with_name("moved"))
    work.symlink_to(outside)
    folders.remove(folder)
    assert not Path(folder).exists()
    assert stat.S_IMODE(outside.stat().st_mode) == 0o751
    assert (outside / "below" / "file").read_text() == "kept"


def test_a_link_in_the_place_of_all_of_it_is_removed_as_such(folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    Path(folder).symlink_to(outside)
    folders.remove(folder)
    assert not os.path.lexists(folder)
    assert outside.is_dir()


def test_deep_and_unreadable_trees_are_removed(folder):
    folders.make(folder, None)
    descriptor = os.open(folders.work_in(folder), os.O_RDONLY)
    for number in range(1500):
        os.mkdir("d", dir_fd=descriptor)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        if number % 100 == 0:
            Path(f"/proc/self/fd/{descriptor}").chmod(0)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    folders.remove(folder)
    assert not Path(folder).exists()


def test_removal_stops_when_its_time_is_up(folder):
    folders.make(folder, None)
    with pytest.raises(TimeoutError):
        folders.remove(folder, time.monotonic() - 1)
    folders.remove(folder)


def test_a_work_folder_opens_whatever_its_mode_and_not_by_a_link(folder, tmp_path):
    folders.make(folder, None)
    work = Path(folders.work_in(folder))
    (work / "file").write_text("x")
    work.chmod(0)
    descriptor = folders.open_work(folder)
    assert [entry.name for entry in os.scandir(descriptor)] == ["file"]
    os.close(descriptor)
    work.rename(work.with_name("moved"))
    work.symlink_to(tmp_path)
    with pytest.raises(NotADirectoryError):
        folders.open_work(folder)
