/* The same requests to KVM as the figures of the linux provider make, by a program that does nothing else.
 *
 * Prints three numbers: nanoseconds of a hypercall to user space and back, of KVM_GET_ONE_REG and of KVM_SET_ONE_REG
 * for the timebase offset; means over the number of times that is given.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#define MEMORY (1UL << 20)
#define ENTRY_MSR 0x8000000000001001UL

static const uint32_t guest[] = {0x38600058, 0x44000022, 0x4bfffff8}; /* li r3,0x58; sc 1; b .-8 */

/* In integers: Linux 6.1 was seen to come back from KVM_RUN with the guest's floating-point registers in place of this
 * program's, now and then.
 */
static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return 1000000000UL * t.tv_sec + t.tv_nsec;
}

static int must(int result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(1);
	}
	return result;
}

int main(int argc, char **argv)
{
	int n, times = argc > 1 ? atoi(argv[1]) : 1000;
	int kvm = must(open("/dev/kvm", O_RDWR), "/dev/kvm");
	int vm = must(ioctl(kvm, KVM_CREATE_VM, 1), "KVM_CREATE_VM");
	void *memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct kvm_userspace_memory_region region = {.memory_size = MEMORY, .userspace_addr = (uintptr_t)memory};
	struct kvm_enable_cap papr = {.cap = KVM_CAP_PPC_PAPR};
	uint64_t offset = 0;
	struct kvm_one_reg one = {.id = KVM_REG_PPC_TB_OFFSET, .addr = (uintptr_t)&offset};
	struct kvm_regs regs;
	struct kvm_run *run;
	uint64_t begun, runs, gets, sets;
	int vcpu;

	must(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
	memcpy(memory, guest, sizeof guest);
	vcpu = must(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	must(ioctl(vcpu, KVM_ENABLE_CAP, &papr), "KVM_CAP_PPC_PAPR");
	must(ioctl(vcpu, KVM_GET_REGS, &regs), "KVM_GET_REGS");
	regs.msr = ENTRY_MSR;
	must(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
	must(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");

	begun = now();
	for (n = 0; n < times; n++) {
		run->papr_hcall.ret = 0;
		must(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
	}
	runs = now() - begun;
	begun = now();
	for (n = 0; n < times; n++)
		must(ioctl(vcpu, KVM_GET_ONE_REG, &one), "KVM_GET_ONE_REG");
	gets = now() - begun;
	begun = now();
	for (n = 0; n < times; n++)
		must(ioctl(vcpu, KVM_SET_ONE_REG, &one), "KVM_SET_ONE_REG");
	sets = now() - begun;
	printf("%lu %lu %lu\n", runs / times, gets / times, sets / times);
	return 0;
}
