#![no_std]
//! Kuafu's packet logic, written once for the kernel and for userland.
