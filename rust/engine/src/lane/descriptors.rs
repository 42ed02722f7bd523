//! The descriptors of an event loop. tokio keeps them to itself, and a forked child has to close them.
use crate::raw::SocketEntry;
use tokio::runtime::Runtime;

/// The epoll set, once for the loop and once for those who register with it, and the eventfd that wakes it. The kernel tells which
/// they are: the set that a socket of ours was just registered with. Empty where it does not, and then a child keeps them.
#[cfg(target_os = "linux")]
pub fn of(runtime: &Runtime) -> Vec<SocketEntry> {
    use std::os::fd::{AsRawFd, RawFd};
    use std::os::unix::fs::MetadataExt;
    let _context = runtime.enter();
    let Ok(marker) = tokio::net::UnixDatagram::unbound() else { return Vec::new() };
    let Ok(inode) = std::fs::metadata(format!("/proc/self/fd/{}", marker.as_raw_fd())).map(|m| m.ino()) else {
        return Vec::new();
    };
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let kind = |fd: RawFd| std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    let mut found: Vec<RawFd> = Vec::new();
    for fd in open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        if kind(fd).as_os_str() != "anon_inode:[eventpoll]" {
            continue;
        }
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
        let targets: Vec<(RawFd, u64)> = text.lines().filter_map(target).collect();
        if targets.contains(&(marker.as_raw_fd(), inode)) {
            found.push(fd);
            let wakers = targets.iter().map(|(fd, _)| *fd).filter(|fd| kind(*fd).as_os_str() == "anon_inode:[eventfd]");
            found.extend(wakers);
        }
    }
    found.sort_unstable();
    found.dedup();
    found.into_iter().map(SocketEntry::new).collect()
}

#[cfg(not(target_os = "linux"))]
pub fn of(_runtime: &Runtime) -> Vec<SocketEntry> {
    Vec::new() // a kqueue is not inherited
}

/// Descriptor and inode, as in "tfd:  7 events:  19 data:  0  pos:0 ino:40e sdev:10".
#[cfg(target_os = "linux")]
fn target(line: &str) -> Option<(i32, u64)> {
    let mut words = line.strip_prefix("tfd:")?.split_whitespace();
    let fd = words.next()?.parse().ok()?;
    let inode = words.find_map(|word| word.strip_prefix("ino:"))?;
    Some((fd, u64::from_str_radix(inode, 16).ok()?))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn an_event_loop_has_three() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        assert_eq!(of(&runtime).len(), 3);
        let other = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        assert_eq!((of(&other).len(), of(&runtime).len()), (3, 3));
    }
}
