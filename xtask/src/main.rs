//! cargo xtask: demo, test, soak, bench, ebpf, package.

fn main() {}
