# SPDX-License-Identifier: Apache-2.0
# Recipe for Spack 1.0 and later. Put it into a repository of yours, and build a checkout of fsllm_hpc in its folder:
#   spack repo create ~/repo fsllm && spack repo add ~/repo/spack_repo/fsllm
#   mkdir ~/repo/spack_repo/fsllm/packages/fsllm_hpc && cp packaging/spack/package.py ~/repo/spack_repo/fsllm/packages/fsllm_hpc/
#   spack dev-build fsllm-hpc@develop
# LibTorch is py-torch's, with Spack's math library (OpenBLAS by default): other bits than with the wheel of PyPI.
from spack_repo.builtin.build_systems.cmake import CMakePackage

from spack.package import *


class FsllmHpc(CMakePackage):
    """Federated fine-tuning of large language models as an MPI batch program."""

    homepage = "https://example.org/fsllm_hpc"  # where your copy lies
    git = "https://example.org/fsllm_hpc.git"

    license("Apache-2.0")

    version("develop", branch="main")
    version("0.1.0", tag="v0.1.0")

    variant("cuda", default=False, description="Build with CUDA and NCCL")
    variant("parquet", default=True, description="Read Parquet data files with Apache Arrow")
    variant("tests", default=False, description="Build the tests")

    depends_on("c", type="build")
    depends_on("cxx", type="build")
    depends_on("cmake@3.22:", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("ninja", type="build")

    depends_on("py-torch@2.7.1:", type=("build", "link", "run"))
    depends_on("py-torch+cuda", when="+cuda")
    depends_on("py-torch~cuda", when="~cuda")
    depends_on("mpi@3.1:")
    depends_on("hdf5@1.10: ~mpi")
    depends_on("yaml-cpp@0.6:")
    depends_on("boost@1.70: +program_options")
    depends_on("nlohmann-json@3.10:")
    depends_on("fmt@8:")
    depends_on("spdlog@1.9:")
    depends_on("sentencepiece@0.1.96:")
    depends_on("pcre2@10.39:")
    depends_on("utf8proc@2.7:")
    depends_on("xxhash@0.8:")
    depends_on("hwloc@2:")
    depends_on("libzip@1.7:")
    depends_on("cpp-httplib@0.12:")
    depends_on("openssl@3:")
    depends_on("zlib-api")
    depends_on("arrow@23: +parquet", when="+parquet")
    depends_on("cuda@12.6:", when="+cuda")
    depends_on("nccl@2.18:", when="+cuda")
    depends_on("googletest@1.11: +gmock", type="build", when="+tests")

    def cmake_args(self):
        # .../site-packages/torch/share/cmake
        torch = ancestor(self.spec["py-torch"].package.cmake_prefix_paths[0], 2)
        return [
            self.define("Torch_ROOT", torch),
            self.define_from_variant("FSLLM_CUDA", "cuda"),
            self.define("FSLLM_PARQUET", "ON" if self.spec.satisfies("+parquet") else "OFF"),
            self.define_from_variant("FSLLM_TESTS", "tests"),
        ]
