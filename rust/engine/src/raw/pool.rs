//! Memory that bodies are received into, kept for the next ones.
use super::{HUGE_PAGE, MOST, Span, generation};
use std::alloc::Layout;
use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex};

const PAGE: usize = 4096;
/// From here on memory is mapped, in huge pages: their first touch costs a third of the CPU that 4 KiB pages cost.
const MAPPED: usize = HUGE_PAGE;

/// Rounds up so that no more than an eighth is wasted and sizes fall into few classes.
fn class_of(size: usize) -> usize {
    if size <= PAGE {
        return PAGE;
    }
    let step = (1usize << (usize::BITS - 1 - (size - 1).leading_zeros())) >> 3;
    let rounded = size.div_ceil(step.max(PAGE)) * step.max(PAGE);
    if rounded >= MAPPED { rounded.next_multiple_of(64 << 10) } else { rounded }
}

#[derive(Debug)]
struct Block {
    ptr: *mut u8,
    capacity: usize,
}

// SAFETY: an owned allocation.
unsafe impl Send for Block {}

impl Block {
    /// None where the machine has no such memory.
    fn new(capacity: usize) -> Option<Block> {
        if capacity < MAPPED {
            // SAFETY: the layout is not empty.
            let ptr = unsafe { std::alloc::alloc(Self::layout(capacity)) };
            return (!ptr.is_null()).then_some(Block { ptr, capacity });
        }
        // SAFETY: a new private mapping, larger by one huge page so that the block can begin on one; what is over is unmapped.
        unsafe {
            let total = capacity + HUGE_PAGE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let base = libc::mmap(std::ptr::null_mut(), total, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            if base == libc::MAP_FAILED {
                return None;
            }
            let skip = base.align_offset(HUGE_PAGE);
            if skip > 0 {
                libc::munmap(base, skip);
            }
            let ptr = base.add(skip);
            if HUGE_PAGE > skip {
                libc::munmap(ptr.add(capacity), HUGE_PAGE - skip);
            }
            #[cfg(target_os = "linux")]
            libc::madvise(ptr, capacity, libc::MADV_HUGEPAGE);
            Some(Block { ptr: ptr.cast(), capacity })
        }
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, 64).expect("a valid layout")
    }

    fn free(self) {
        // SAFETY: made in `new` with this capacity, and freed once, since `self` is consumed.
        unsafe {
            if self.capacity < MAPPED {
                std::alloc::dealloc(self.ptr, Self::layout(self.capacity));
            } else {
                libc::munmap(self.ptr.cast(), self.capacity);
            }
        }
    }
}

#[derive(Default)]
struct Shelf {
    blocks: Vec<Block>,
    /// The fewest blocks that lay here since the last trim: so many were not needed.
    unused: usize,
}

/// Idle memory by size class, up to a limit, and for some seconds only: memory that a virtual machine has given back to its
/// host costs 2 CPU seconds a gigabyte at its next touch, ten times what receiving into it costs.
pub struct Pool {
    idle_limit: usize,
    shelves: Mutex<std::collections::BTreeMap<usize, Shelf>>,
    idle_bytes: AtomicUsize,
}

impl Pool {
    pub fn new(idle_limit: usize) -> Pool {
        Pool { idle_limit, shelves: Mutex::default(), idle_bytes: AtomicUsize::new(0) }
    }

    /// None where the machine has no such memory.
    pub fn take(self: &Arc<Self>, len: usize) -> Option<PooledBuffer> {
        if len > MOST {
            return None;
        }
        let capacity = class_of(len);
        let block = {
            let mut shelves = self.shelves.lock().unwrap_or_else(|e| e.into_inner());
            shelves.get_mut(&capacity).and_then(|shelf| {
                let block = shelf.blocks.pop();
                shelf.unused = shelf.unused.min(shelf.blocks.len());
                block
            })
        };
        let block = match block {
            Some(block) => {
                self.idle_bytes.fetch_sub(capacity, Relaxed);
                block
            }
            None => Block::new(capacity)?,
        };
        Some(PooledBuffer { block: Some(block), len, generation: generation(), pool: self.clone() })
    }

    /// A buffer for nothing.
    pub fn take_none(self: &Arc<Self>) -> PooledBuffer {
        PooledBuffer { block: None, len: 0, generation: generation(), pool: self.clone() }
    }

    fn put_back(&self, block: Block) {
        let capacity = block.capacity;
        if self.idle_bytes.fetch_add(capacity, Relaxed) + capacity > self.idle_limit {
            self.idle_bytes.fetch_sub(capacity, Relaxed);
            return block.free();
        }
        self.shelves.lock().unwrap_or_else(|e| e.into_inner()).entry(capacity).or_default().blocks.push(block);
    }

    /// Frees what was not needed since the last call.
    pub fn trim(&self) {
        let mut unneeded = Vec::new();
        let mut shelves = self.shelves.lock().unwrap_or_else(|e| e.into_inner());
        for shelf in shelves.values_mut() {
            let keep = shelf.blocks.len() - shelf.unused.min(shelf.blocks.len());
            unneeded.extend(shelf.blocks.drain(keep..));
            shelf.unused = shelf.blocks.len();
        }
        drop(shelves);
        for block in unneeded {
            self.idle_bytes.fetch_sub(block.capacity, Relaxed);
            block.free();
        }
    }

    pub fn idle_bytes(&self) -> usize {
        self.idle_bytes.load(Relaxed)
    }
}

/// Memory of a [`Pool`], which gets it back when this dies; in the child of a fork it is left alone.
pub struct PooledBuffer {
    block: Option<Block>,
    len: usize,
    generation: u32,
    pool: Arc<Pool>,
}

// SAFETY: the memory is reached through spans only.
unsafe impl Sync for PooledBuffer {}

impl PooledBuffer {
    pub fn span(&self) -> Span {
        let ptr = self.block.as_ref().map_or(std::ptr::null_mut(), |b| b.ptr);
        Span::of(ptr, self.len)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes it shorter: for a body that turned out smaller than was planned.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            if self.generation == generation() {
                self.pool.put_back(block);
            } else if block.capacity >= MAPPED {
                // The child's own copy of the mapping; the parent's pool, whose lock may be held forever here, stays untouched.
                block.free();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_little() {
        for size in
            [1, 4096, 4097, 5000, 100 << 10, (100 << 10) + 1, 1 << 20, (8 << 20) - 1, 8 << 20, 1 << 30, 3_000_000_001]
        {
            let class = class_of(size);
            assert!(class >= size && (class - size) * 8 <= size.max(PAGE * 8) + (64 << 10) * 8, "{size} -> {class}");
            assert_eq!(class_of(class), class);
        }
        assert_eq!(class_of(8 << 20), 8 << 20);
        assert_eq!(class_of(100 << 10), 104 << 10);
    }

    #[test]
    fn buffers_come_back_and_are_trimmed() {
        let pool = Arc::new(Pool::new(64 << 20));
        let first = pool.take(100 << 10).unwrap();
        let at = first.span().as_ptr();
        first.span().copy_from(5, b"hello");
        drop(first);
        assert_eq!(pool.idle_bytes(), 104 << 10);
        let again = pool.take(99 << 10).unwrap();
        assert_eq!(again.span().as_ptr(), at);
        drop(again);
        pool.trim(); // it was used since the shelf was made
        pool.trim();
        assert_eq!(pool.idle_bytes(), 0);
    }

    #[test]
    fn large_blocks_begin_on_a_huge_page() {
        let pool = Arc::new(Pool::new(64 << 20));
        let buffer = pool.take(5 << 20).unwrap();
        assert_eq!(buffer.span().as_ptr() as usize % HUGE_PAGE, 0);
        buffer.span().copy_from((5 << 20) - 3, b"end");
        let mut end = [0; 3];
        buffer.span().copy_to((5 << 20) - 3, &mut end);
        assert_eq!(&end, b"end");
    }

    #[test]
    fn memory_that_no_machine_has_is_refused() {
        let pool = Arc::new(Pool::new(64 << 20));
        for len in [1 << 47, 1 << 50, (1 << 50) + 1, usize::MAX / 2, usize::MAX - 5, usize::MAX] {
            assert!(pool.take(len).is_none(), "{len}");
        }
    }
}
