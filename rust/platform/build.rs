//! Refuses platforms that nothing here was written for, before a hundred errors of the compiler say the same.
//! In a build script, as that ends the build first and needs no standard library of the target.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |part: &str| std::env::var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default();
    let instead = match (target("OS").as_str(), target("ENV").as_str()) {
        ("windows", _) => "on Windows, use WSL: https://learn.microsoft.com/windows/wsl/install",
        ("linux", "musl") => "instead of Alpine Linux, use an image with glibc, such as python:3.13-slim",
        _ => return,
    };
    println!("cargo::error=s3dataset runs on Linux with glibc 2.17 or later and on macOS; {instead}");
}
