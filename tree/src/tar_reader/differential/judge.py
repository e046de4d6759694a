"""Reads the archives 0.tar, 1.tar, … of the directory, and prints a line for each.

A line is "refused", or the entries, each followed by a semicolon: what there is to say of one, with
commas between, names in hexadecimal. As root it unpacks them, too, where it can't get out: N.tar to
N.python/fs, and makes N.python/done where that went well.
"""
import encodings.utf_8, encodings.ascii, grp, io, math, os, pwd, signal, sys, tarfile, zlib

LOOKED_AT = 4 << 20
is_root = os.geteuid() == 0
# It reads the table of users when it is first asked for one.
pwd.getpwuid(0), grp.getgrgid(0)
tarfile.TarFile.extraction_filter = staticmethod(lambda member, path: member)
if is_root:
    os.chroot(".")
    os.chdir("/")


def give_up(*_):
    raise TimeoutError


# It opens a pipe that is in the way of a file, and waits there for ever.
signal.signal(signal.SIGALRM, give_up)


def kind(member):
    for answer, is_it in (("f", member.isreg), ("d", member.isdir), ("l", member.issym),
                          ("h", member.islnk), ("c", member.ischr), ("b", member.isblk),
                          ("p", member.isfifo)):
        if is_it():
            return answer
    return "?"


def text(value):
    return value.encode("utf-8", "surrogateescape").hex()


def describe(archive, member):
    content = "-"
    if member.isreg() and 0 <= member.size <= LOOKED_AT:
        content = zlib.crc32(archive.extractfile(member).read())
    mtime = math.floor(member.mtime) if abs(member.mtime) < 1 << 50 else "-"
    fields = (text(member.name), kind(member), text(member.linkname), member.size if member.isreg() else 0,
              member.mode & 0o7777, member.uid, member.gid, mtime, member.devmajor, member.devminor,
              content)
    return ",".join(map(str, fields)) + ";"


def unpack(data, root):
    os.makedirs(root + "/fs")
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:", errorlevel=1) as archive:
        members = archive.getmembers()
        if any(".." in member.name or member.name.startswith("/") for member in members):
            return
        archive.extractall(root + "/fs", numeric_owner=True)
    open(root + "/done", "w").close()


for number in range(int(sys.argv[1])):
    with open(f"{number}.tar", "rb") as file:
        data = file.read()
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            print("".join([describe(archive, member) for member in archive]))
    except Exception:
        print("refused")
        continue
    if is_root:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            unpack(data, f"{number}.python")
        except Exception:
            pass
        signal.setitimer(signal.ITIMER_REAL, 0)
