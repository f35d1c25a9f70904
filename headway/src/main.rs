//! headway
fn main() {}
