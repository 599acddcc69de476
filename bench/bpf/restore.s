# Programs that a benchmark wraps around another, in the syntax of LLVM's BPF assembler:
# llvm-mc-22 --triple=bpfel --filetype=obj -o restore.o restore.s
#
# BPF_PROG_TEST_RUN with a repeat count does not restore the packet, so a program that rewrites it would meet its own
# work. `restore` writes the packet anew from the map `frame` and then becomes the program in `programs`; the others put
# its beginning back first, which a program may have moved. `restore_exit` also gives it other numbers each time, from
# the map `turns` in its order, so that no window has seen them; `restore_flows` gives it another client each time, of as
# many as the map `turn` says; `restore_v6` restores one of IPv6. `passes` is what
# each of them becomes to calibrate: its price is the wrapper's. `forwards` exchanges the MAC addresses and sends the
# packet back: the plain XDP forwarder.
#
# Loads that span two stores stall, so the stores lie as the programs' loads do: words from the IP header on, from
# Geneve on, and from the inner packet on.

	.macro	copy	type, offset
	r1 = *(\type *)(r0 + \offset)
	*(\type *)(r7 + \offset) = r1
	.endm

	# r0: the first entry of a map, or the program ends.
	.macro	first	map, end
	r1 = 0
	*(u32 *)(r10 - 4) = r1
	r2 = r10
	r2 += -4
	r1 = \map ll
	call 1
	if r0 == 0 goto \end
	.endm

	# r6: the context, r7 and r8: beginning and end of the packet.
	.macro	bounds
	r7 = *(u32 *)(r6 + 0)
	r8 = *(u32 *)(r6 + 4)
	.endm

	# The packet has so many octets again, by bpf_xdp_adjust_head.
	.macro	put_back	octets
	bounds
	r2 = r8
	r2 -= r7
	r2 += -\octets
	r1 = r6
	call 44
	bounds
	.endm

	# The same where the end was cut off, by bpf_xdp_adjust_tail.
	.macro	lengthen	octets
	bounds
	r2 = r7
	r2 -= r8
	r2 += \octets
	r1 = r6
	call 65
	bounds
	.endm

	.macro	check	octets, end
	r1 = r7
	r1 += \octets
	if r1 > r8 goto \end
	.endm

	# Becomes the program in `programs`.
	.macro	become	end
	r1 = r6
	r2 = programs ll
	r3 = 0
	call 12
\end:
	r0 = 0
	exit
	.endm

	# A client's packet of 70 octets.
	.macro	copy_client
	copy u64, 0
	copy u32, 8
	copy u16, 12
	copy u64, 14
	copy u64, 22
	copy u64, 30
	copy u64, 38
	copy u64, 46
	copy u64, 54
	copy u64, 62
	.endm

	# The client's packet whose turn it is.
	.macro	another_client	end
	first turn, \end
	r9 = *(u64 *)(r0 + 0)
	r1 = r9
	r1 += 1
	*(u64 *)(r0 + 0) = r1
	r1 = *(u64 *)(r0 + 8)
	r9 &= r1
	first frame, \end
	check 70, \end
	copy u64, 0
	copy u32, 8
	copy u16, 12
	r2 = r9
	r2 ^= -1
	r2 &= 0xffff
	r2 <<= 32
	r1 = *(u64 *)(r0 + 14)
	r1 |= r2
	*(u64 *)(r7 + 14) = r1
	r2 = r9
	r2 <<= 48
	r1 = *(u64 *)(r0 + 22)
	r1 |= r2
	*(u64 *)(r7 + 22) = r1
	r9 >>= 16
	r9 &= 0xffff
	r9 <<= 32
	r1 = *(u64 *)(r0 + 30)
	r1 |= r9
	*(u64 *)(r7 + 30) = r1
	copy u64, 38
	copy u64, 46
	copy u64, 54
	copy u64, 62
	become \end
	.endm

	# Up to Geneve's option.
	.macro	copy_outer
	copy u64, 0
	copy u32, 8
	copy u16, 12
	copy u64, 14
	copy u64, 22
	copy u64, 30
	copy u32, 38
	copy u64, 42
	copy u32, 50
	.endm

	.macro	copy_inner
	copy u64, 74
	copy u64, 82
	copy u64, 90
	copy u64, 98
	copy u64, 106
	copy u64, 114
	copy u64, 122
	.endm

	.section	xdp,"ax",@progbits
	.globl	restore
	.type	restore,@function
restore:
	r6 = r1
	bounds
	first frame, restore_ends
	check 130, restore_ends
	copy_outer
	copy u64, 54
	copy u32, 62
	copy u64, 66
	copy_inner
	become restore_ends
	.size	restore, . - restore

	# A client's packet.
	.section	xdp,"ax",@progbits
	.globl	restore_entry
	.type	restore_entry,@function
restore_entry:
	r6 = r1
	put_back 70
	first frame, restore_entry_ends
	check 70, restore_entry_ends
	copy_client
	become restore_entry_ends
	.size	restore_entry, . - restore_entry

	# The same of IPv6.
	.section	xdp,"ax",@progbits
	.globl	restore_v6
	.type	restore_v6,@function
restore_v6:
	r6 = r1
	put_back 90
	first frame, restore_v6_ends
	check 90, restore_v6_ends
	copy_client
	copy u64, 70
	copy u64, 78
	copy u32, 86
	become restore_v6_ends
	.size	restore_v6, . - restore_v6

	# A client's packet, whose number is the lower half of the client's address and, above that, the port. With the
	# address the identification changes, so that the sum of both, and so the checksum, stays: the frame has zeros there.
	.section	xdp,"ax",@progbits
	.globl	restore_flows
	.type	restore_flows,@function
restore_flows:
	r6 = r1
	put_back 70
	another_client restore_flows_ends
	.size	restore_flows, . - restore_flows

	# The same, of which only the headers were left.
	.section	xdp,"ax",@progbits
	.globl	restore_cut
	.type	restore_cut,@function
restore_cut:
	r6 = r1
	lengthen 70
	another_client restore_cut_ends
	.size	restore_cut, . - restore_cut

	.section	xdp,"ax",@progbits
	.globl	restore_exit
	.type	restore_exit,@function
restore_exit:
	r6 = r1
	put_back 130
	first turn, restore_exit_ends
	r1 = *(u64 *)(r0 + 0)
	r2 = r1
	r2 += 1
	*(u64 *)(r0 + 0) = r2
	r1 &= 1023
	*(u32 *)(r10 - 4) = r1
	r2 = r10
	r2 += -4
	r1 = turns ll
	call 1
	if r0 == 0 goto restore_exit_ends
	r9 = r0
	first frame, restore_exit_ends
	check 130, restore_exit_ends
	copy_outer
	r1 = *(u64 *)(r9 + 0)
	*(u64 *)(r7 + 54) = r1
	copy u32, 62
	r1 = *(u64 *)(r9 + 8)
	*(u64 *)(r7 + 66) = r1
	copy_inner
	become restore_exit_ends
	.size	restore_exit, . - restore_exit

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
	.globl	turn
	.type	turn,@object
turn:
	.long	2, 4, 16, 1, 0
	.size	turn, 20
	.globl	turns
	.type	turns,@object
turns:
	.long	2, 4, 16, 1024, 0
	.size	turns, 20

	.section	license,"aw",@progbits
	.asciz	"Dual MIT/GPL"
