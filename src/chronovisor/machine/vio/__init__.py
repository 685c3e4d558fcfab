"""PAPR's virtual devices: a bus with DMA windows and message queues, disks (v-scsi) and networks (l-lan)."""
