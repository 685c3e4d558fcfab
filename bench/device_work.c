/*
 * What BusyBox has no program for: requests to a disk, several at a time, and round trips over a connection.
 *
 *     device-work read|write DEPTH COUNT    4 KiB each, at random places of /dev/sda, past the page cache
 *     device-work trips ADDRESS PORT COUNT  a byte there and one back
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SIZE 4096
#define MOST 64

static uint64_t state = 1;

static uint64_t at_random(uint64_t limit)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (state >> 33) % limit;
}

static void submit(aio_context_t context, struct iocb *request, uint64_t places)
{
	request->aio_offset = at_random(places) * SIZE;
	if (syscall(SYS_io_submit, context, 1, &request) != 1)
		err(1, "io_submit");
}

static void disk(int writes, int depth, long count)
{
	static struct iocb requests[MOST];
	struct io_event events[MOST];
	aio_context_t context = 0;
	uint64_t size;
	int file = open("/dev/sda", O_RDWR | O_DIRECT);

	if (file < 0 || ioctl(file, BLKGETSIZE64, &size))
		err(1, "/dev/sda");
	if (depth < 1 || depth > MOST || syscall(SYS_io_setup, MOST, &context))
		err(1, "io_setup");
	for (int i = 0; i < depth; i++) {
		requests[i].aio_fildes = file;
		requests[i].aio_lio_opcode = writes ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
		requests[i].aio_buf = (uintptr_t)aligned_alloc(SIZE, SIZE);
		requests[i].aio_nbytes = SIZE;
		memset((void *)(uintptr_t)requests[i].aio_buf, i, SIZE);
		submit(context, &requests[i], size / SIZE);
	}
	for (long left = count; left > 0;) {
		long done = syscall(SYS_io_getevents, context, 1, MOST, events, NULL);

		for (long i = 0; i < done; i++) {
			if (events[i].res != SIZE)
				errx(1, "a request ended with %lld", (long long)events[i].res);
			if (--left >= depth)
				submit(context, (struct iocb *)(uintptr_t)events[i].obj, size / SIZE);
		}
	}
}

static void trips(const char *address, int port, long count)
{
	struct sockaddr_in there = { .sin_family = AF_INET, .sin_port = htons(port) };
	int one = 1, way = socket(AF_INET, SOCK_STREAM, 0);
	char byte;

	inet_pton(AF_INET, address, &there.sin_addr);
	if (connect(way, (struct sockaddr *)&there, sizeof there) || write(way, "ECHO", 4) != 4)
		err(1, "%s", address);
	setsockopt(way, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	while (count--)
		if (read(way, &byte, 1) != 1 || write(way, &byte, 1) != 1)
			err(1, "a round trip");
}

int main(int argc, char **argv)
{
	if (argc == 4)
		disk(!strcmp(argv[1], "write"), atoi(argv[2]), atol(argv[3]));
	else if (argc == 5)
		trips(argv[2], atoi(argv[3]), atol(argv[4]));
	else
		return 2;
	return 0;
}
