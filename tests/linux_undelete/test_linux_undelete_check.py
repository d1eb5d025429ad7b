"""linux_undelete: files that are deleted but open, and dangerous commands."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from linux_undelete import check, shell
from linux_undelete.undelete import open_files


# --- Files that are deleted but open ---
@pytest.fixture
def holder(tmp_path):
    """A process that holds deleted files open, and what was in them."""
    code = """if True:
        import os, sys
        folder, files = sys.argv[1], []
        for name, size in (("notes 笔记.txt", 300_000), ("empty", 0)):
            files.append(open(os.path.join(folder, name), "wb+", buffering=0))
            files[-1].write((b"deleted %d\\n" % size) * (size // 15))
            os.unlink(files[-1].name)
        again = os.dup(files[0].fileno())
        kept = open(os.path.join(folder, "kept (deleted)"), "wb+")
        linked = open(os.path.join(folder, "linked"), "wb+")
        os.link(linked.name, linked.name + "2")
        os.unlink(linked.name)
        memory = os.memfd_create("memory")
        print("ready", flush=True)
        sys.stdin.read()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"ready\n"
    yield process
    process.stdin.close()
    process.wait()
    process.stdout.close()


def held(process):
    return [entry for entry in open_files.deleted_open_files() if entry.pid == process.pid]


def test_a_deleted_file_that_is_open_is_copied_back_whole(holder, tmp_path):
    entries = {Path(entry.path).name: entry for entry in held(holder)}
    assert set(entries) == {"notes 笔记.txt", "empty"}, "each once; kept, linked and memory are not"
    content = b"deleted 300000\n" * 20_000
    notes = entries["notes 笔记.txt"]
    assert notes.size == len(content) and notes.path == str(tmp_path / "notes 笔记.txt")
    assert sys.executable in notes.command
    out = tmp_path / "new" / "out"
    paths = [open_files.copy_open_file(notes, out) for _ in range(3)]
    assert [p.name for p in paths] == ["notes 笔记.txt", "notes 笔记.txt.2", "notes 笔记.txt.3"]
    assert all(path.read_bytes() == content for path in paths)
    assert open_files.copy_open_file(entries["empty"], out).read_bytes() == b""
    assert len(list(out.iterdir())) == 4, "no temporary file is left"


def test_a_copy_is_never_over_a_file(holder, tmp_path):
    (tmp_path / "notes 笔记.txt").write_text("written since")
    entry = next(entry for entry in held(holder) if "notes" in entry.path)
    copy = open_files.copy_open_file(entry, tmp_path)
    assert copy.name == "notes 笔记.txt.2"
    assert (tmp_path / "notes 笔记.txt").read_text() == "written since"


def test_another_file_in_its_place_is_not_copied(holder, tmp_path):
    notes = next(entry for entry in held(holder) if "notes" in entry.path)
    notes.link = next(entry.link for entry in held(holder) if "empty" in entry.path)
    with pytest.raises(OSError, match="closed it"):
        open_files.copy_open_file(notes, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_all_are_copied_when_nobody_reads_what_is_printed(holder, tmp_path, monkeypatch):
    mine = held(holder)
    monkeypatch.setattr(open_files, "deleted_open_files", lambda denied: mine)

    def broken(*text, **more):
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", broken)
    open_files.show_open_files(tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == len(mine) == 2


def test_open_files_are_shown_copied_and_failures_counted(
    holder, tmp_path, capsys, monkeypatch, error_of
):
    mine = held(holder)
    gone = open_files.OpenFile(0, "ended", "/tmp/gone", 5, "/proc/0/fd/3", (1, 2))

    def found(denied=None, proc="/proc"):
        denied += [1, 2]
        return list(listed)

    monkeypatch.setattr(open_files, "deleted_open_files", found)
    listed = mine
    open_files.show_open_files(tmp_path / "out", as_json=True)
    shown = capsys.readouterr()
    lines = [json.loads(line) for line in shown.out.splitlines()]
    assert {Path(line["copy"]).read_bytes()[:7] for line in lines} == {b"deleted", b""}
    assert shown.err.count("\n") == 1 and "2 processes" in shown.err
    listed = [entry for entry in mine if entry.size][:1]
    listed[0].path = os.fsdecode("/tmp/笔记".encode("gbk"))
    for as_json in (True, False):
        open_files.show_open_files(tmp_path / "gbk", as_json)
        capsys.readouterr().out.encode()  # Which a terminal in UTF-8 can show.
    assert len(list((tmp_path / "gbk").iterdir())) == 2
    listed = [gone, *mine]
    with pytest.raises(SystemExit) as stop:
        open_files.show_open_files(tmp_path / "again")
    assert stop.value.code == 2 and "1 of 3" in capsys.readouterr().err
    assert len(list((tmp_path / "again").iterdir())) == 2
    listed = []
    open_files.show_open_files()
    assert "no deleted file" in capsys.readouterr().out


def test_without_proc_nothing_is_claimed(monkeypatch, error_of):
    monkeypatch.setattr(Path, "is_dir", lambda path: False)
    assert "/proc" in error_of(open_files.show_open_files)


def test_processes_that_may_not_be_looked_into_are_counted(monkeypatch, tmp_path):
    for number in (7, 8, 9):
        (tmp_path / str(number) / "fd").mkdir(parents=True)
    iterdir = Path.iterdir

    def guarded(path):
        if "8" in path.parts:
            raise PermissionError(13, "Permission denied")
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", guarded)
    denied = []
    assert open_files.deleted_open_files(denied, proc=tmp_path) == [] and denied == [8]


# --- Dangerous commands ---
MOUNTS = [("/dev/sda1", "/"), ("/dev/nvme0n1p2", "/data")]
ACCIDENTS = r"""
mv a /* b
sudo mv a /* b
mv a / * b
cp a /* b
chown -R me a /* b
sudo mv /* /root
rm -rf /
sudo rm / -rf
rm -rf -- /
rm -r \
rm -rf --no-preserve-root /
rm -f /*
chmod -R 777 /
rm -rf $D/
rm -rf "$D"/*
rm -rf "${D}/"*
rm -rf $A/$B
rm -rf $1/*
rm -rf "${D}"/etc
mv $D/* x
chown -R me:me $D/
find $D/ -name x -delete
D=; rm -rf $D/
set -u; D=''; rm -rf $D/
read D; rm -rf $D/*
D=$EMPTY; rm -rf $D/*
trap 'rm -rf $T/*' EXIT
bash -c 'rm -rf /*'
eval "rm -rf /*"
x=$(rm -rf /*)
echo "`rm -rf /*`"
diff <(rm -rf /*) x
if true; then rm -rf /; fi
while read x; do rm -rf /*; done < list
f() { rm -rf /; }
ls && rm -rf / || true
sudo -u root env A=1 rm -rf /usr /lib/nvidia
ls | xargs -n 1 rm -rf /
sudo --user root rm -rf /
sudo --user=root rm -rf /
sudo -iu root rm -rf /
sudo -uroot rm -rf /
timeout --signal KILL 5 rm -rf /
mv -t b a /*
mv -vt b a /*
mv -tb a /*
cp --target-directory=b a /*
cp --target-directory b a /*
cp -t /dev/sda x
rm -rf /*/
rm -rf /usr/*/
rm -rf ~/*/
nohup nice -n 5 rm -rf /* &
time -p rm -rf /
time rm -rf /
sudo --command-timeout 5 rm -rf /
exec -a x rm -rf /
env -S 'rm -rf /'
env -S'rm -rf' /
T=/usr/bin/timeout rm -rf /
cp -r a /*/ b
rm -rf /../.
rm -rf ~ /x
rm -rf $HOME /x
mv ~ /x
rm -rf build/ *
rm * .o
dd if=x of=/dev/sda
sudo dd if=x.img of=/dev/sdb bs=4M
dd if=x of=/dev/rdisk0
cat x > /dev/sda
cat x | sudo tee /dev/nvme0n1
cp x.img /dev/mmcblk0
mkfs.ext4 /dev/sda1
mkfs -t ext4 /dev/sda
shred /dev/nvme0n1
mv log /dev/null
sort f > f
sort < f > ./f
cat f | sed s/a/b/ > f
cat ./a f | sort | uniq > f
grep -v x f >f
awk '{print $1}' f 2>&1 >| f
tr a b < f > f
sort "$f" > "$f"
cat f | tee f
find . -delete -name '*.o'
find . -exec rm {} \; -name x
find / -delete
find / -type f -delete
find ~ -delete
find /home -delete
find / -exec /bin/rm -rf {} +
find / -exec sudo rm -rf {} +
find . -exec nice rm {} \; -name x
set -euo pipefail; rm -rf "${D:-}"/*
rm -rf ${D:-$E}/*
rm -rf ${D:-""}/*
D=x rm -rf $D/*
D=x; unset D; rm -rf $D/*
: ${D:=}; rm -rf $D/*
chmod -R -x /
chmod -R --reference=a /
chown -R --reference=a /
rm -f /etc/*
rm -f ~/*
rm -rf /usr/lib
rm -rf /usr/bin
rm -rf /Users
su -c 'rm -rf /*'
dd if=x of=/dev/vg0/root
cat x > /dev/loop0
"""
INNOCENT = r"""
rm -rf ./build/*
mv a/* b
echo "rm -rf /"
echo rm -rf /
mv -t / a b
mv -t b -- a
cp -rt /backup /etc/hosts
sudo --user root rm -rf ./build
sudo -iu rm ls /
rm -rf /srv/*/
# rm -rf /
ls # rm -rf /*
mv a '/*' b
mv a \/\* b
mv a "/*" b
D=x; rm -rf $D/*
D=$(mktemp -d); rm -rf "$D"/*
export D=x; rm -rf $D/*
local D=x; rm -rf $D/*
set -u; rm -rf $D/*
set -euo pipefail; rm -rf $D/*
rm -rf ${D:?}/*
rm -rf ${D:-build}/*
: ${D:=build}; rm -rf $D/*
[ -n "$D" ] && rm -rf $D/*
for d in a b; do rm -rf $d/; done
rm -rf $D
rm -rf "$tmp"/foo
rm -rf '$D'/
rm -rf /tmp/*
rm -rf /var/lib/apt/lists/*
rm -rf ~/x
rm -rf $HOME/.cache/x
rm -i *
rm *.o
cp -a /* /mnt
cp x /
mv x /
chmod 755 /
ls /*
tar cf x.tar /*
mkdir -p /usr
git rm -r .
a=( rm -rf / )
dd of=image.img
dd if=/dev/sda of=disk.img
dd if=/dev/zero of=/dev/null
cat f > /dev/null
cat /dev/null > f
rm -f /dev/shm/x
mkfs.ext4 /dev/sdb1
mkfs.ext4 disk.img
sort f > g
sort f -o f
cat f >> f
cat f > f.new && mv f.new f
echo f > f
grep f x > f
sed -i s/a/b/ f
sort f | tee g
[[ a > b ]]
(( a << 2 ))
find . -name x -delete
find . -maxdepth 1 -type f -delete
find $D -name x -delete
find /tmp/x -delete
find / -name rm
find ~ -name '*.pyc' -delete
find ~ -xtype l -delete
find ~ -type l ! -exec test -e {} \; -delete
find /var -type f ! -newermt '30 days ago' -delete
find ~ -maxdepth 1 -type f -delete
rm -rf "${D:?}"/* "$D"/.[!.]*
mv "${D:?}"/* "$D"/.[!.]* there/
set -u; D=; : "${D:?}"; rm -rf "$D"/*
D=x bash -c 'rm -rf $D/*'
set -u; D=x; rm -rf ${D:-}/*
rm -rf ${D:-$HOME}/x
rm -rf /usr/local/x
"""


def lines_of(text):
    """The lines; the one that ends in a backslash goes on with "  /"."""
    return [f"{x}\n  /" if x.endswith("\\") else x for x in text.strip().splitlines()]


@pytest.mark.parametrize("command", lines_of(ACCIDENTS))
def test_an_accident_is_warned_of(command):
    found = check.check_text(command, MOUNTS)
    assert found and all(f.line == 1 and f.problem and f.why and f.safer for f in found)


@pytest.mark.parametrize("command", lines_of(INNOCENT))
def test_an_innocent_command_is_not(command):
    assert check.check_text(command, MOUNTS) == []


def test_mounted_disks_are_said_so():
    [found] = check.check_text("dd if=x of=/dev/sda", MOUNTS)
    assert "mounted at /" in found.problem
    [found] = check.check_text("dd if=x of=/dev/sdb", MOUNTS)
    assert "mounted" not in found.problem
    assert all(device.startswith("/dev/") for device, _ in check.read_mounts())
    assert check.read_mounts("/nowhere") == []


SCRIPT = """#!/bin/bash
# rm -rf /
set -e
cat > notes <<'END' | sort
rm -rf /*
$(rm -rf /)
END
echo "it's" \\
  fine
rm -rf "$BUILD"/* # line 10
BUILD=out
rm -rf "$BUILD"/*
bash <<-END
\trm -rf /*
\tEND
"""


def test_a_script_is_read_to_its_end_and_lines_are_right(tmp_path, capsys):
    path = tmp_path / "script.sh"
    path.write_text(SCRIPT)
    with pytest.raises(SystemExit) as stop:
        check.main(["--json", "--script", str(path)])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert stop.value.code == 1
    assert [(f["file"], f["line"]) for f in found] == [(str(path), 10), (str(path), 13)]
    assert "$BUILD may be empty" in found[0]["problem"]


def test_lines_of_a_here_document_end_as_in_bash():
    text = "cat <<END\nx\u2028END\x0c\nEND\nls\nmv a /* b\n"
    assert [warning.line for warning in check.check_text(text, [])] == [5]


def test_exit_codes_and_that_nothing_is_run(tmp_path, capsys, monkeypatch):
    marker = tmp_path / "marker"
    for command, code, words in (
        (["ls"], 0, ""),
        ([f"touch {marker}; $(touch {marker}); rm -rf /*"], 1, "command line:1: warning: rm of /*"),
        (["rm", "-rf", "/"], 1, "rm of /"),
        (["mv", "a", "/bin", "/etc", "b"], 1, "mv of the system folder /bin"),  # Without quotes.
        (["--json", "--", "mv a /* b"], 1, '"problem": "mv of /*'),  # As predict.py --check does.
        (["mv a /* b", "--json"], 1, '"problem": "mv of /*'),
        (["mv a /* b", "ls"], 2, "error: give one command line"),
        ([], 2, "error: give one command line"),
        (["--script", "x", "--json", "ls"], 2, "error: give one command line"),
        (["echo 'open"], 2, "error: command line:1"),
        (["--script", str(tmp_path / "missing")], 2, "missing"),
        (["--script", sys.executable], 2, "not a text"),
        (["--script", str(tmp_path / "python.sh")], 2, "not a shell script"),
        (["--script", "-"], 1, "-:1: warning"),
    ):
        (tmp_path / "python.sh").write_text("#!/usr/bin/env python3\n")
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"mv a /* b")))
        with pytest.raises(SystemExit) as stop:
            check.main(command)
        shown = capsys.readouterr()
        assert stop.value.code == code and words in shown.out + shown.err, (command, shown)
        assert not marker.exists() and (code < 2 or len(shown.err.splitlines()) == 1)


def test_check_in_a_fresh_process():
    run = [sys.executable, "linux_undelete/check.py", "mv a /* b"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and not done.stderr
    assert done.stdout.startswith("command line:1: warning: mv of /*")


def test_words_are_those_that_bash_sees():
    """Quotes, backslashes, comments and line ends, with bash itself as the reference."""
    words = r"""a 'b c' "d e" f\ g 'h'"i"\j "k\"l" 'm\n' "o\p" $'q\'r' "" '' "s\\t" u#v \
      w"x
y" 'z*' "\$HOME" '$HOME' "a`echo b`"c # no 'word"""
    try:
        run = ["bash", "-c", f"printf '%s\\0' {words}"]
        done = subprocess.run(run, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        pytest.skip("no bash here")
    [[command]] = shell.parse(words)
    ours = [shell.reveal(shell.bare(word)) for word in command.words]
    theirs = done.stdout.split("\0")[:-1]
    places = [i for i, word in enumerate(ours) if "`" not in word and "\\'" not in word]
    assert len(ours) == len(theirs) and len(places) == 16
    assert [ours[i] for i in places] == [theirs[i] for i in places]
