//! srv-cpu: jobs: programs run for a caller, one numbered directory each.
