# Programs that a benchmark wraps around another, in the syntax of LLVM's BPF assembler.
#
# BPF_PROG_TEST_RUN with a repeat count does not restore the packet, so a program that rewrites it would meet its own
# work. `restore` writes the packet anew from the map `frame` and then becomes the program in `programs`. `passes` is
# what it becomes to calibrate: its price is the wrapper's. `forwards` exchanges the MAC addresses and sends the packet
# back: the plain XDP forwarder.
#
# Loads that span two stores stall, so the stores lie as the programs' loads do: words from the IP header on, from
# Geneve on, and from the inner packet on.

	.macro	copy	type, offset
	r1 = *(\type *)(r0 + \offset)
	*(\type *)(r7 + \offset) = r1
	.endm

	.section	xdp,"ax",@progbits
	.globl	restore
	.type	restore,@function
restore:
	r6 = r1
	r7 = *(u32 *)(r1 + 0)
	r8 = *(u32 *)(r1 + 4)
	r1 = 0
	*(u32 *)(r10 - 4) = r1
	r2 = r10
	r2 += -4
	r1 = frame ll
	call 1
	if r0 == 0 goto restore_ends
	r1 = r7
	r1 += 130
	if r1 > r8 goto restore_ends
	copy u64, 0
	copy u32, 8
	copy u16, 12
	copy u64, 14
	copy u64, 22
	copy u64, 30
	copy u32, 38
	copy u64, 42
	copy u32, 50
	copy u64, 54
	copy u32, 62
	copy u64, 66
	copy u64, 74
	copy u64, 82
	copy u64, 90
	copy u64, 98
	copy u64, 106
	copy u64, 114
	copy u64, 122
	r1 = r6
	r2 = programs ll
	r3 = 0
	call 12
restore_ends:
	r0 = 0
	exit
	.size	restore, . - restore

	.section	xdp,"ax",@progbits
	.globl	passes
	.type	passes,@function
passes:
	r0 = 2
	exit
	.size	passes, . - passes

	.section	xdp,"ax",@progbits
	.globl	forwards
	.type	forwards,@function
forwards:
	r2 = *(u32 *)(r1 + 0)
	r3 = *(u32 *)(r1 + 4)
	r0 = 0
	r4 = r2
	r4 += 14
	if r4 > r3 goto forwards_ends
	r3 = *(u32 *)(r2 + 0)
	r4 = *(u16 *)(r2 + 4)
	r5 = *(u32 *)(r2 + 6)
	r0 = *(u16 *)(r2 + 10)
	*(u32 *)(r2 + 0) = r5
	*(u16 *)(r2 + 4) = r0
	*(u32 *)(r2 + 6) = r3
	*(u16 *)(r2 + 10) = r4
	r0 = 3
forwards_ends:
	exit
	.size	forwards, . - forwards

# struct bpf_map_def: type, key size, value size, entries, flags.
	.section	maps,"aw",@progbits
	.p2align	2
	.globl	frame
	.type	frame,@object
frame:
	.long	2, 4, 136, 1, 0
	.size	frame, 20
	.globl	programs
	.type	programs,@object
programs:
	.long	3, 4, 4, 1, 0
	.size	programs, 20

	.section	license,"aw",@progbits
	.asciz	"Dual MIT/GPL"
