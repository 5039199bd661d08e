# SPDX-License-Identifier: Apache-2.0
"""Recipes and CITATION.cff: they name this version, options that CMake knows, and every library of INSTALL.

SPACK_PACKAGES, a checkout of spack-packages: the Spack recipe's packages and variants are looked up there. `eb` and `cffconvert`
on PATH are asked too.
"""
import ast
import os
import pathlib
import re
import shutil
import subprocess
import sys
import types

source = pathlib.Path(os.environ["FSLLM_SOURCE_DIR"])
cmake = "".join(path.read_text() for path in [source / "CMakeLists.txt", *sorted((source / "cmake").glob("*.cmake"))])
version = re.search(r"project\(fsllm VERSION ([\d.]+)", cmake)[1]
# A word in the names of a recipe for each row of INSTALL's table.
libraries = ["torch", "hdf5", "yaml-cpp", "boost", "nlohmann", "spdlog", "fmt", "sentencepiece", "pcre2", "utf8proc", "openssl", "zlib",
             "httplib", "libzip", "xxhash", "hwloc"]


def check(condition, text):
    if not condition:
        sys.exit(f"FAILED: {text}")


def knows_options(text, where):
    for option in re.findall(r"\b(FSLLM_[A-Z]+)\b", text):
        check(re.search(rf"(option|set)\({option}\b", cmake), f"{where}: CMake has no {option}")


def has_libraries(names, where):
    for library in libraries:
        check(any(library in name.lower() for name in names), f"{where} lacks {library}")


def spack():
    text = (source / "packaging/spack/package.py").read_text()
    knows_options(text, "package.py")
    calls = {name: [] for name in ("version", "variant", "depends_on", "license")}
    stub = types.ModuleType("spack.package")
    for name, seen in calls.items():
        setattr(stub, name, lambda *args, _seen=seen, **kwargs: _seen.append((args, kwargs)))
    stub.ancestor = lambda path, n: str(pathlib.PurePath(path).parents[n - 1])

    class CMakePackage:
        def define(self, name, value):
            return f"-D{name}={value}"

        def define_from_variant(self, name, variant):
            check(any(args[0] == variant for args, _ in calls["variant"]), f"package.py: no variant {variant}")
            return f"-D{name}=ON"

    modules = {"spack.package": stub, "spack": types.ModuleType("spack")}
    for name in ("spack_repo", "spack_repo.builtin", "spack_repo.builtin.build_systems", "spack_repo.builtin.build_systems.cmake"):
        modules[name] = types.ModuleType(name)
    modules["spack_repo.builtin.build_systems.cmake"].CMakePackage = CMakePackage
    sys.modules.update(modules)
    names = {}
    exec(compile(ast.parse(text), "package.py", "exec"), names)
    check(any(args[0] == version for args, _ in calls["version"]), f"package.py has no version {version}")
    dependencies = [args[0] for args, _ in calls["depends_on"]]
    has_libraries(dependencies, "package.py")

    package = names["FsllmHpc"]()
    torch = types.SimpleNamespace(package=types.SimpleNamespace(cmake_prefix_paths=["/x/site-packages/torch/share/cmake"]))
    package.spec = type("Spec", (), {"__getitem__": lambda self, name: torch, "satisfies": lambda self, what: True})()
    check("-DTorch_ROOT=/x/site-packages/torch" in package.cmake_args(), f"package.py: {package.cmake_args()}")

    repository = os.environ.get("SPACK_PACKAGES")
    if not repository:
        return "package.py runs against stubs (SPACK_PACKAGES names no checkout)"
    for dependency in dependencies:
        name = re.match(r"[a-z0-9-]+", dependency)[0]
        if name in ("c", "cxx", "mpi", "pkgconfig", "zlib-api"):  # virtual
            continue
        recipe = pathlib.Path(repository) / "repos/spack_repo/builtin/packages" / name.replace("-", "_") / "package.py"
        check(recipe.exists(), f"Spack has no package {name}")
        for variant in re.findall(r"[+~]([a-z_]+)", dependency):
            known = recipe.read_text() + (recipe.parent / "../../build_systems/cuda.py").read_text()
            check(f'"{variant}"' in known, f"Spack's {name} has no variant {variant}")
    return f"package.py: {len(dependencies)} dependencies are in {repository}"


def easybuild():
    recipes = list((source / "packaging/easybuild").glob("*.eb"))
    check([path.name for path in recipes] == [f"fsllm_hpc-{version}-foss-2024a.eb"], f"easyconfigs: {recipes}")
    text = recipes[0].read_text()
    knows_options(text, recipes[0].name)
    facts = {"SYSTEM": "SYSTEM"}
    exec(compile(text, recipes[0].name, "exec"), facts)
    check(facts["version"] == version, f"{recipes[0].name} is of {facts['version']}")
    has_libraries([row[0] for row in facts["dependencies"]] + [str(facts["sources"])], recipes[0].name)
    if not shutil.which("eb"):
        return "easyconfig: read (no eb here)"
    eb = ["eb", "--allow-use-as-root-and-accept-consequences", "--module-syntax=Tcl", "--modules-tool=EnvironmentModules"]
    for action in (["--dry-run", "--robot"], ["--check-style"], ["--check-conflicts", "--robot"]):
        answer = subprocess.run([*eb, *action, str(recipes[0])], capture_output=True, text=True)
        check(answer.returncode == 0, f"eb {action}: {answer.stdout[-2000:]}{answer.stderr[-2000:]}")
    return "easyconfig: eb resolves all dependencies, finds the style good and no conflicts"


def citation():
    text = (source / "CITATION.cff").read_text()
    check(f"\nversion: {version}\n" in text, f"CITATION.cff is not of {version}")
    if not shutil.which("cffconvert"):
        return "CITATION.cff: read (no cffconvert here)"
    answer = subprocess.run(["cffconvert", "--validate", "-i", str(source / "CITATION.cff")], capture_output=True, text=True)
    check(answer.returncode == 0, answer.stderr)
    return "CITATION.cff: valid by cffconvert"


for part in (spack, easybuild, citation):
    print(part())
