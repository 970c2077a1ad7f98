//! Names the style by its text, so that browsers may keep it for ever.

use std::hash::{DefaultHasher, Hasher};

fn main() {
    let path = "src/layout/style.css";
    println!("cargo::rerun-if-changed={path}");
    let mut hasher = DefaultHasher::new();
    hasher.write(&std::fs::read(path).unwrap_or_default());
    println!("cargo::rustc-env=FRESHET_STYLE_HASH={:016x}", hasher.finish());
}
