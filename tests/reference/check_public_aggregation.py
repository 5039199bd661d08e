# SPDX-License-Identifier: Apache-2.0
"""Public implementations of federated methods against the closed forms of docs/ALGORITHMS.md: relative errors, and which
variant was made instead. Runs a project's own functions from a checkout of it (numpy, torch):

    python tests/reference/check_public_aggregation.py PROJECT --repo CHECKOUT
    python tests/reference/check_public_aggregation.py self-test
"""
import argparse
import sys
from pathlib import Path

import public_factors
import public_forms as forms
import public_servers
import public_self_test

PROJECTS = {
    "FedLLM-Factory": public_factors.factory,
    "FederatedGPT-Shepherd": public_factors.shepherd,
    "FederatedLLM": public_factors.flora,
    "FLoRIST": public_factors.florist,
    "fedex-lora": public_factors.fedex_lora,
    "fed-sb": public_factors.fed_sb,
    "FRLoRA": public_factors.frlora,
    "FedSVD": public_factors.fedsvd,
    "PrivacyFedLLM": public_factors.fedask,
    "PrivacyFedLLM-scaffold": public_servers.privacy_scaffold,
    "NVFlare": public_factors.nvflare,
    "APPFL": public_factors.appfl,
    "OpenFedLLM": public_servers.openfedllm,
    "FederatedScope": public_servers.federatedscope,
    "torchft": public_servers.torchft,
    "acfa-rs": public_servers.acfa,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", choices=[*PROJECTS, "self-test"])
    parser.add_argument("--repo", type=Path, help="a checkout of the project")
    options = parser.parse_args()
    if options.project == "self-test":
        return public_self_test.run()
    if not options.repo or not options.repo.is_dir():
        parser.error("--repo must name a checkout of the project")
    check = PROJECTS[options.project]
    print(f"{check.__doc__}\n  {'method':34} {'rel. error':>9}  (bound {forms.BOUND:.0e})", flush=True)
    check(options.repo.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
