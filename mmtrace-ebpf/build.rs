//! How bpf-linker must link the kernel programs.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // By default small memory is cleared and copied by a function that goes byte by byte, five
    // instructions each, on every system call; without this, by one instruction for eight bytes.
    println!("cargo:rustc-link-arg-bins=--disable-expand-memcpy-in-order");
}
