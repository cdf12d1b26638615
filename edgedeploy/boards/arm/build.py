"""Builds the image of an emulated Arm board once, from Debian packages and wheels. A failed build leaves nothing
behind."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from edgedeploy.boards.arm import files
from edgedeploy.boards.arm.debian import Apt, run, unpack
from edgedeploy.boards.arm.image import (
    PACKAGES,
    PROGRAMS,
    RUNTIMES,
    ArmMachine,
    Image,
    image_of,
    require_root,
    requirements,
)
from edgedeploy.boards.arm.initrd import modules_with_dependencies, pack
from edgedeploy.boards.emulated.hosting import find_program, require_programs
from edgedeploy.errors import CommandFailed
from edgedeploy.files import lock_file, new_folder, remove_partials, write_json

Tell = Callable[[str], None]

BUILDERS: Final = {"apt-get": "apt", "apt-cache": "apt", "dpkg-deb": "dpkg", "tar": "tar", "mke2fs": "e2fsprogs"}
WHEEL_PLATFORMS: Final = tuple(f"manylinux_2_{minor}_aarch64" for minor in (17, 27, 28, 31, 34, 35))
"""glibc 2.36 of Debian 12 runs wheels for all of these."""

UNNEEDED: Final = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/lib/apt", "var/cache")
KERNEL: Final = "linux-image-cloud-arm64"
MODULES: Final = ("virtio_mmio", "virtio_blk", "virtio_net", "virtio_rng", "qemu_fw_cfg")
DISK_SPARE_BYTES: Final = 256 << 20


def create(machine: ArmMachine, tell: Tell, cache: Path | None = None) -> Image:
    """The image of ``machine``, built unless it exists. ``tell`` gets a line at each step.

    Raises ``TargetUnavailable`` on a host that cannot build it, ``CommandFailed`` when a step fails. An interrupted
    build leaves nothing that a later call would take for an image.
    """
    asked = f"edgedeploy boards create {machine}"
    require_programs(asked, {**PROGRAMS[machine], **BUILDERS})
    require_root(asked)
    image = image_of(machine, cache)
    with _alone(image.folder.parent, tell):
        _create(image, tell)
    return image


def _create(image: Image, tell: Tell) -> None:
    if image.exists():
        tell(f"{image.machine}: is there already: {image.folder}")
        return
    started_s = time.monotonic()
    if image.machine == "arm64-system":
        base = image_of("arm64", image.folder.parent)
        _create(base, tell)
        with new_folder(image.folder) as part:
            _build_system(base, Image(image.machine, image.key, part), tell)
    else:
        with new_folder(image.folder) as part:
            _build_root(Image(image.machine, image.key, part), tell)
    size_bytes = sum(path.lstat().st_blocks * 512 for path in image.folder.rglob("*"))
    tell(f"{image.machine}: built in {time.monotonic() - started_s:.0f} s, {size_bytes / 1e6:.0f} MB: {image.folder}")


@contextlib.contextmanager
def _alone(folder: Path, tell: Tell) -> Iterator[None]:
    """Holds a lock so that one process builds at a time, and removes what a killed build left."""
    folder.mkdir(parents=True, exist_ok=True)
    with lock_file(folder / ".lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("waiting: another process builds an image")
            fcntl.flock(lock, fcntl.LOCK_EX)
        remove_partials(folder)
        yield


def _build_root(image: Image, tell: Tell) -> None:
    work = image.folder / "work"
    apt = Apt(work)
    tell("package lists")
    apt.update()
    tell("packages")
    archives = apt.fetch(PACKAGES)
    size_bytes = sum(path.stat().st_size for path in archives)
    tell(f"unpacking {len(archives)} packages, {size_bytes / 1e6:.0f} MB")
    unpack(archives, image.root)
    _write_accounts(image)
    python = (image.root / "usr/bin/python3").readlink().name
    tell(f"wheels for {python}")
    contents = {path.name.partition("_")[0]: path.name.split("_")[1] for path in archives}
    contents |= _install_wheels(image.root, python, tell)
    shutil.rmtree(work)
    for name in UNNEEDED:
        shutil.rmtree(image.root / name, ignore_errors=True)
    _compile(image.root, python, tell)
    write_json(image.manifest, {"contents": contents, "machine": image.machine, "python": python})


def _write_accounts(image: Image) -> None:
    root = image.root
    texts = {
        "passwd": files.ACCOUNTS,
        "shadow": files.SHADOW,
        "group": files.GROUP,
        "hosts": files.HOSTS,
        "hostname": "edgedeploy-arm64\n",
        "machine-id": f"{uuid.uuid5(uuid.NAMESPACE_OID, image.key).hex}\n",
    }
    for name, text in texts.items():
        (root / "etc" / name).write_text(text, encoding="ascii")
    if not (root / "bin/sh").exists():
        (root / "bin/sh").symlink_to("dash")
    init = root / "opt/edgedeploy/init"
    init.parent.mkdir(parents=True)
    init.write_text(files.INIT, encoding="ascii")
    init.chmod(0o755)
    for name in ("proc", "sys", "dev", "run", "tmp", "root", "var/tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)


def _install_wheels(root: Path, python: str, tell: Tell) -> dict[str, str]:
    """Install the runtimes and return their versions. A runtime without a wheel for this machine is left out and
    reported."""
    place = root / "usr/local/lib" / python / "dist-packages"
    place.mkdir(parents=True, exist_ok=True)
    platforms = [word for name in WHEEL_PLATFORMS for word in ("--platform", name)]
    pip = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
        *("--root-user-action", "ignore", "--target", str(place), "--only-binary", ":all:"),
        *("--implementation", "cp", "--python-version", python.removeprefix("python"), *platforms),
    ]
    wanted = requirements()
    try:
        run([*pip, *wanted])
    except CommandFailed as together:
        tell(f"not all wheels install together, trying one by one: {together.found[-200:]}")
        numpy = wanted[0]
        for name in wanted[1:]:
            try:
                run([*pip, "--upgrade", numpy, name])
            except CommandFailed as alone:
                tell(f"left out: {name}: {alone.found[-200:]}")
    found = {}
    for folder in sorted(place.glob("*.dist-info")):
        name, _, version = folder.name.removesuffix(".dist-info").rpartition("-")
        found[name.replace("_", "-")] = version
    if not any(name in found for name in RUNTIMES):
        raise CommandFailed("install the runtimes", "no wheel of any of them", "Is the package index reached?")
    return found


def _compile(root: Path, python: str, tell: Tell) -> None:
    """Compile Python's byte code on this host: the board's file system is read-only, and under emulation compiling
    takes ten times as long."""
    own = f"python{sys.version_info.major}.{sys.version_info.minor}"
    program = sys.executable if own == python else find_program(python)
    if program is None:
        tell(f"no {python} on this host: the board compiles its modules at each start, which is slow")
        return
    tell("byte code")
    libraries = [root / "usr/lib" / python, root / "usr/local/lib" / python / "dist-packages"]
    options = ["-q", "-s", str(root), "-p", "/", "--invalidation-mode", "unchecked-hash", "-x", "tests?/"]
    with contextlib.suppress(CommandFailed):  # files for other Python versions are in some packages, and do not compile
        run([program, "-I", "-m", "compileall", *options, *map(str, libraries)])


def _build_system(base: Image, image: Image, tell: Tell) -> None:
    work = image.folder / "work"
    apt = Apt(work)
    tell("package lists")
    apt.update()
    name = f"{apt.dependency(KERNEL, 'linux-image-')}-unsigned"
    tell(f"kernel: {name}")
    unpacked = work / "kernel"
    unpack([apt.fetch_alone(name)], unpacked)
    shutil.copy(next((unpacked / "boot").glob("vmlinuz-*")), image.kernel)
    modules = modules_with_dependencies(MODULES, next((unpacked / "usr/lib/modules").iterdir()))
    start = files.INITRD_INIT.format(modules=" ".join(modules)).encode()
    content = {f"modules/{module}.ko": data for module, data in modules.items()}
    content |= {"init": start, "bin/busybox": (base.root / "bin/busybox").read_bytes()}
    image.initrd.write_bytes(gzip.compress(pack(content, ("bin", "dev", "modules", "root")), mtime=0))
    shutil.rmtree(work)
    tell("disk")
    used_bytes = sum(path.lstat().st_blocks * 512 for path in base.root.rglob("*"))
    size_kib = (used_bytes * 5 // 4 + DISK_SPARE_BYTES) >> 10
    mke2fs = find_program("mke2fs") or "mke2fs"
    run([mke2fs, "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d", str(base.root), str(image.disk), f"{size_kib}k"])
    contents = json.loads(base.manifest.read_text(encoding="utf-8"))["contents"]
    write_json(image.manifest, {"contents": {**contents, "linux": name}, "machine": image.machine})
