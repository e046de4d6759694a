"""What the probes build from, beside the contexts of `kernels`: Debian, packages of its own, and wheels.

All of it is fetched once and kept; later runs ask no server.
"""
import glob
import hashlib
import os
import shutil
import subprocess
import sys

from kernels import packages
from kernels.trouble import REPOSITORY, Missing

# Where the end-to-end tests keep it, too.
ARCHIVE = os.path.join(REPOSITORY, 'target/tmp/debian-bookworm.tar')
MIRROR = 'http://deb.debian.org/debian'
RELEASE = packages.Debian('bookworm')


def debian():
    """Returns the archive of a Debian root file system."""
    if not os.path.exists(ARCHIVE):
        if not shutil.which('debootstrap'):
            raise Missing('debootstrap (Debian package debootstrap)')
        print('fetching Debian', flush=True)
        root, new = ARCHIVE + '.root', f'{ARCHIVE}.{os.getpid()}'
        os.makedirs(os.path.dirname(ARCHIVE), exist_ok=True)
        shutil.rmtree(root, ignore_errors=True)
        done = subprocess.run(['debootstrap', '--variant=minbase', RELEASE.name, root, MIRROR], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise Missing(f'Debian by debootstrap: {done.stdout.splitlines()[-1]}')
        subprocess.run(['tar', '-C', root, '-cf', new, '.'], check=True)
        shutil.rmtree(root)
        os.rename(new, ARCHIVE)
    return ARCHIVE


def files(cache, names, wheels):
    """Returns a directory with Debian packages in `debs` and wheels in `wheels`, for a build context."""
    key = hashlib.sha256(repr((names, wheels)).encode()).hexdigest()[:12]
    home = os.path.join(os.path.abspath(cache), key)

    def fetch(ready):
        unfinished = ready + '.new'
        shutil.rmtree(unfinished, ignore_errors=True)
        fetch_packages(os.path.join(home, 'apt'), names, os.path.join(unfinished, 'debs'))
        fetch_wheels(wheels, os.path.join(unfinished, 'wheels'))
        subprocess.run(['chmod', '-R', 'a+rX', unfinished], check=True)
        os.rename(unfinished, ready)

    return packages.once(home, 'files', fetch)


def fetch_packages(home, names, directory):
    """Downloads packages and those that they need and Debian's root file system lacks, and makes an archive of them."""
    print(f'fetching {" ".join(names)}', flush=True)
    shutil.rmtree(home, ignore_errors=True)
    apt = packages.Apt(RELEASE, home)
    with open(os.path.join(home, 'status'), 'wb') as file:
        subprocess.run(['tar', '-xOf', debian(), './var/lib/dpkg/status'], stdout=file, check=True)
    apt.run('apt-get', '-q', '-y', '--no-install-recommends', '--download-only', 'install', *names)
    os.makedirs(directory)
    for package in glob.glob(f'{home}/cache/archives/*.deb'):
        # A colon would be escaped.
        shutil.move(package, os.path.join(directory, os.path.basename(package).replace('%3a', '-')))
    write_index(directory)
    shutil.rmtree(home)


def write_index(directory):
    """Writes the index of an archive of packages."""
    entries = []
    for package in sorted(os.listdir(directory)):
        path = os.path.join(directory, package)
        control = subprocess.run(['dpkg-deb', '-f', path], check=True, text=True, stdout=subprocess.PIPE).stdout
        with open(path, 'rb') as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        entries.append(f'{control}Filename: ./{package}\nSize: {os.path.getsize(path)}\nSHA256: {digest}\n')
    with open(os.path.join(directory, 'Packages'), 'w', encoding='utf-8') as file:
        file.write('\n'.join(entries))


def fetch_wheels(names, directory):
    """Downloads wheels for Debian's Python."""
    os.makedirs(directory)
    if not names:
        return
    print(f'fetching {" ".join(names)}', flush=True)
    done = subprocess.run([sys.executable, '-m', 'pip', 'download', '--quiet', '--only-binary', ':all:', '--python-version', '3.11',
                           '--platform', 'manylinux2014_x86_64', '--platform', 'manylinux_2_17_x86_64', '--dest', directory,
                           *names], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise Missing(f'wheels of {" ".join(names)}: {done.stdout.splitlines()[-1]}')
