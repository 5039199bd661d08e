# SPDX-License-Identifier: Apache-2.0
# To be sourced. What Open MPI has to be told on one machine: as root, in a container, with more ranks than cores, and that a
# program's own words about an error are enough. Values of the caller stay; a batch job of several nodes is left alone.
: "${OMPI_MCA_orte_execute_quiet:=1}" "${PRTE_MCA_prte_execute_quiet:=1}"
export OMPI_MCA_orte_execute_quiet PRTE_MCA_prte_execute_quiet
if [ "$(id -u)" = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
if [ -z "${SLURM_JOB_ID:-}${PBS_JOBID:-}" ]; then
  : "${OMPI_MCA_rmaps_base_oversubscribe:=1}" "${PRTE_MCA_rmaps_default_mapping_policy:=:oversubscribe}"
  : "${OMPI_MCA_hwloc_base_binding_policy:=none}" "${PRTE_MCA_hwloc_default_binding_policy:=none}"
  : "${OMPI_MCA_mpi_yield_when_idle:=1}"
  : "${OMPI_MCA_btl_vader_single_copy_mechanism:=none}" "${OMPI_MCA_btl_sm_single_copy_mechanism:=none}"
  : "${OMPI_MCA_btl:=^tcp}"  # one node, perhaps without a network
  export OMPI_MCA_rmaps_base_oversubscribe PRTE_MCA_rmaps_default_mapping_policy OMPI_MCA_btl
  export OMPI_MCA_hwloc_base_binding_policy PRTE_MCA_hwloc_default_binding_policy OMPI_MCA_mpi_yield_when_idle
  export OMPI_MCA_btl_vader_single_copy_mechanism OMPI_MCA_btl_sm_single_copy_mechanism
fi
