"""Builds the compiled modules; everything declarative is in pyproject.toml.

`tcm_kernels._cpu`, the C++ kernel, is built wherever there is a C++ compiler, `tcm_kernels._cuda`, the CUDA
kernels, wherever there is nvcc besides: neither needs a GPU, nor a torch that was built for one. Without a
compiler, or with TCM_KERNELS_NO_EXTENSIONS=1, a pure-Python package is installed, which runs through the
`torch` and `triton` backends. A build of the C++ kernel that fails, fails the installation; one of the CUDA
kernels leaves them out and says so, because everything runs without them. Both modules use libtorch's stable
ABI and Python's limited API: one binary serves every torch >= 2.10 and every Python >= 3.10.

    TORCH_CUDA_ARCH_LIST    which GPUs, as for torch: "9.0a" or "8.0;8.6+PTX"; all from 8.0 on by default
    TCM_KERNELS_NO_CUDA     1 leaves the CUDA kernels out
    TCM_KERNELS_STRICT      1 makes errors of warnings, and of CUDA kernels that do not build, as `make` does
    MAX_JOBS                compilations at once; as many as there are processors by default
"""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import setup

SOURCES = Path(__file__).resolve().parent / "csrc"  # includes name files from here
TORCH_TARGET = "0x020a000000000000"  # torch 2.10: the oldest whose stable ABI has all we call
OLDEST_NVCC = (12, 0)  # the first that knows C++20
# By default, of these what nvcc knows. The chips of an entry share the PTX of the first, which takes most of
# the time to make: nvcc 13 makes the same instructions of it as of each chip's own. 8.9 runs code for 8.6.
GPUS = ("80 86", "90a", "100 120")
FAMILIES = {"Ampere": "8.0 8.6+PTX", "Ada": "8.9+PTX", "Hopper": "9.0+PTX", "Blackwell": "10.0 12.0+PTX"}


def is_set(name: str) -> bool:
    """Whether an environment variable says yes."""
    return os.environ.get(name, "0") not in ("", "0")


STRICT = is_set("TCM_KERNELS_STRICT")
WARNINGS = ["-Wall", "-Wextra", "-Wno-unused-parameter", *(["-Werror"] if STRICT else [])]


def cxx_compiler() -> str | None:
    """The C++ compiler the build would use, or None."""
    asked = os.environ.get("CXX")
    names = [asked.split()[0]] if asked else ["cl"] if sys.platform == "win32" else ["c++", "g++", "clang++"]
    return next((path for path in map(shutil.which, names) if path), None)


def find_nvcc() -> str | None:
    """The CUDA compiler; CUDA_HOME decides where it is set."""
    asked = os.environ.get("CUDA_HOME")
    return shutil.which(f"{asked}/bin/nvcc" if asked else "nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


def nvcc_says(nvcc: str, *arguments: str) -> str:
    """What nvcc prints."""
    done = subprocess.run([nvcc, *arguments], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def nvcc_version(nvcc: str) -> tuple[int, int]:
    """Such as (13, 0)."""
    found = re.search(r"release (\d+)\.(\d+)", nvcc_says(nvcc, "--version"))
    return (int(found[1]), int(found[2])) if found else (0, 0)


def cuda_library_folder(nvcc: str) -> Path:
    """Where CUDA's runtime is, asked of nvcc itself, since what is on the PATH may be a wrapper of it."""
    found = re.search(r"TOP=(.+)", nvcc_says(nvcc, "--dryrun", "any.cu"))
    top = Path(found[1].strip()) if found else Path(nvcc).resolve().parents[1]
    folders = [top / name for name in ("lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib")]
    return next((path for path in folders if (path / "libcudart_static.a").is_file()), folders[0])


def default_gpu_flags(nvcc: str) -> list[str]:
    """For every GPU of `GPUS` that nvcc knows; newer ones run the PTX, which is there but for 9.0a."""
    known = set(re.findall(r"compute_(\d+)", nvcc_says(nvcc, "--list-gpu-arch")))
    flags = []
    for entry in GPUS:
        chips = [chip for chip in entry.split() if chip.rstrip("a") in known]
        if chips:
            ptx = [] if chips[0].endswith("a") else [f"compute_{chips[0]}"]
            codes = ",".join([*(f"sm_{chip}" for chip in chips), *ptx])
            flags.append(f"-gencode=arch=compute_{chips[0]},code=[{codes}]")
    return flags


def gpu_flags(nvcc: str) -> list[str]:
    """What tells nvcc for which GPUs to compile."""
    asked = os.environ.get("TORCH_CUDA_ARCH_LIST")
    if not asked:
        return default_gpu_flags(nvcc)
    names = re.split(r"[;,\s]+", asked.strip())
    flags = []
    for name in " ".join(FAMILIES.get(name, name) for name in names).split():
        found = re.fullmatch(r"(\d+)\.(\d+)([af]?)(\+PTX)?", name)
        if found is None:
            sys.exit(f"tcm_kernels: TORCH_CUDA_ARCH_LIST: got {name!r}, expected such as 9.0a or 8.6+PTX")
        major, minor, suffix, ptx = found.groups()
        if int(major) < 8:
            print(f"tcm_kernels: the CUDA kernels need compute capability 8.0 or more, leaving out {name}")
        else:
            chip = major + minor + suffix
            codes = f"[sm_{chip},compute_{chip}]" if ptx else f"sm_{chip}"
            flags.append(f"-gencode=arch=compute_{chip},code={codes}")
    if not flags:
        sys.exit(
            f"tcm_kernels: TORCH_CUDA_ARCH_LIST: got {asked!r}, expected a compute capability from 8.0 on; "
            "TCM_KERNELS_NO_CUDA=1 leaves the CUDA kernels out"
        )
    return flags


def compile_cuda(nvcc: str, sources: list[Path], includes: list[str], folder: Path) -> list[str]:
    """Compiles .cu files; torch's own step for that asks for a torch with CUDA. Returns the object files.

    With ninja only those that have changed.
    """
    command = [
        *(nvcc, *gpu_flags(nvcc), "-std=c++20", "-O3", "--expt-relaxed-constexpr", "-Xfatbin=-compress-all"),
        *(f"-Xcompiler={flag}" for flag in ("-fPIC", "-fvisibility=hidden", *WARNINGS)),
        *(["-Werror=all-warnings"] if STRICT else []),
        f"-DTORCH_TARGET_VERSION={TORCH_TARGET}",
        *(f"-I{path}" for path in includes),
    ]
    objects = {source.absolute(): folder.absolute() / f"{source.stem}.o" for source in sources}
    jobs = int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)
    folder.mkdir(parents=True, exist_ok=True)
    if importlib.util.find_spec("ninja") is None and shutil.which("ninja") is None:

        def compile_one(source: Path) -> None:
            subprocess.run([*command, "-c", str(source), "-o", str(objects[source])], check=True)

        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(compile_one, objects))
        return list(map(str, objects.values()))

    def escaped(path: Path) -> str:
        return re.sub(r"([$ :])", r"$\1", str(path))

    lines = [
        "rule cuda",
        f"  command = {shlex.join(command).replace('$', '$$')} -MD -MF $out.d -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        *(f"build {escaped(to)}: cuda {escaped(source)}" for source, to in objects.items()),
    ]
    (folder / "build.ninja").write_text("\n".join([*lines, ""]))
    ninja = [sys.executable, "-m", "ninja"] if importlib.util.find_spec("ninja") else ["ninja"]
    subprocess.run([*ninja, "-C", str(folder), "-j", str(jobs)], check=True)
    return list(map(str, objects.values()))


def cpu_module(torch_extension):
    """The C++ kernel."""
    unix = sys.platform != "win32"
    return torch_extension.CppExtension(
        "tcm_kernels._cpu",
        sorted(str(path) for path in Path("csrc/cpu").rglob("*.cpp")),
        depends=sorted(str(path) for path in Path("csrc").rglob("*.h")),
        include_dirs=[str(SOURCES)],
        define_macros=[("TORCH_TARGET_VERSION", TORCH_TARGET)],
        # -g0: the debug information of torch's headers would be most of the file.
        extra_compile_args=["-O3", "-g0", *WARNINGS, "-fvisibility=hidden"] if unix else ["/O2"],
        extra_link_args=["-Wl,-s"] if sys.platform == "linux" else [],
        py_limited_api=True,
    )


def cuda_module(torch_extension, nvcc: str):
    """The CUDA kernels. CUDA's runtime is linked in, so that the module loads whatever torch has."""
    return torch_extension.CppExtension(
        "tcm_kernels._cuda",
        sorted(str(path) for path in Path("csrc/cuda").rglob("*.cpp")),
        depends=sorted(str(path) for kind in ("*.h", "*.cuh", "*.cu") for path in Path("csrc").rglob(kind)),
        include_dirs=[str(SOURCES)],
        define_macros=[("TORCH_TARGET_VERSION", TORCH_TARGET)],
        extra_compile_args=["-O2", "-g0", *WARNINGS, "-fvisibility=hidden"],
        # The linker drops -ltorch unless told otherwise: nothing here calls it but through its C functions.
        extra_link_args=[
            *("-Wl,-s", "-Wl,--exclude-libs,ALL", "-Wl,--no-as-needed", "-ltorch", "-Wl,--as-needed"),
            *(f"-L{cuda_library_folder(nvcc)}", "-lcudart_static", "-ldl", "-lrt", "-lpthread"),
        ],
        py_limited_api=True,
    )


def cuda_failed(error: Exception) -> None:
    """Says that the CUDA kernels are left out, or fails where the build is strict."""
    if STRICT:
        raise error
    rule = "*" * 100
    print(
        f"{rule}\ntcm_kernels: WARNING: the CUDA kernels could not be built, and are left out: the backend "
        f"'cuda' will not run.\n  {type(error).__name__}: {error}\n"
        "  TCM_KERNELS_STRICT=1 makes this an error, TCM_KERNELS_NO_CUDA=1 does not try.\n"
        f"{rule}",
        file=sys.stderr,
    )


def usable_nvcc() -> str | None:
    """The CUDA compiler the build would use, or None."""
    nvcc = None if is_set("TCM_KERNELS_NO_CUDA") or sys.platform != "linux" else find_nvcc()
    if nvcc is None:
        return None
    try:
        version = nvcc_version(nvcc)
    except (OSError, subprocess.CalledProcessError) as error:
        cuda_failed(error)
        return None
    if version < OLDEST_NVCC:
        print(f"tcm_kernels: WARNING: the CUDA kernels need nvcc {OLDEST_NVCC[0]} or newer, leaving them out")
        return None
    return nvcc


def inplace_path(build, name: str) -> str:
    """Where `build_ext --inplace` puts the module."""
    package = build.get_finalized_command("build_py").get_package_dir(name.rpartition(".")[0])
    return os.path.join(package, os.path.basename(build.get_ext_filename(name)))


def extensions() -> dict[str, object]:
    """Keyword arguments of setup() for the compiled part; none for a pure-Python package."""
    if is_set("TCM_KERNELS_NO_EXTENSIONS"):
        print("tcm_kernels: TCM_KERNELS_NO_EXTENSIONS is set, building without the compiled kernels")
        return {}
    if cxx_compiler() is None:
        asked = os.environ.get("CXX")
        if asked:
            sys.exit(f"tcm_kernels: the compiler asked for with CXX={asked} was not found")
        print("tcm_kernels: WARNING: no C++ compiler found, installing without the compiled kernels")
        return {}
    try:
        from torch.utils import cpp_extension  # noqa: PLC0415
    except ImportError as error:
        sys.exit(
            f"tcm_kernels: torch is needed to build the compiled kernels ({error}); install torch first, "
            "or set TCM_KERNELS_NO_EXTENSIONS=1 for a pure-Python package"
        )
    modules = [cpu_module(cpp_extension)]
    nvcc = usable_nvcc()
    if nvcc is not None:
        modules.append(cuda_module(cpp_extension, nvcc))

    class BuildWithCuda(cpp_extension.BuildExtension):
        """Compiles .cu files before the module that they belong to is linked."""

        def build_extension(self, extension):
            if extension.name != "tcm_kernels._cuda":
                super().build_extension(extension)
                return
            try:
                sources = sorted(Path("csrc/cuda").rglob("*.cu"))
                includes = [*cpp_extension.include_paths(), str(SOURCES)]
                folder = Path(self.build_temp) / "cuda"
                extension.extra_objects = compile_cuda(nvcc, sources, includes, folder)
                super().build_extension(extension)
            except Exception as error:
                cuda_failed(error)
                extension.optional = True  # setuptools then goes on without its file
                # One of an earlier build would be kernels of other sources.
                for path in (self.get_ext_fullpath(extension.name), inplace_path(self, extension.name)):
                    Path(path).unlink(missing_ok=True)

    return {
        "ext_modules": modules,
        "cmdclass": {"build_ext": BuildWithCuda},
        "options": {"bdist_wheel": {"py_limited_api": "cp310"}},
    }


if __name__ == "__main__":
    setup(**extensions())
