"""A machine's hardware below any hypervisor: its cores, their hardware threads and time facilities."""
