//! The engine of this process, and what a fork does to it.
use pyo3::prelude::*;
use pyo3::types::PyDict;
use s3dataset_engine::engine::Engine;
use s3dataset_engine::raw::generation;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::*};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pyo3::create_exception!(
    _native,
    ForeignProcessError,
    pyo3::exceptions::PyRuntimeError,
    "The object was made before a fork, in the parent process."
);

/// An engine that is started at its first use. Never freed: its threads live as long as the process.
struct Cell {
    generation: u32,
    engine: OnceLock<Arc<Engine>>,
}

/// No lock guards this, since a fork could come while another thread held it.
static CURRENT: AtomicPtr<Cell> = AtomicPtr::new(std::ptr::null_mut());
static LANES: AtomicUsize = AtomicUsize::new(1);
static MEMORY_LIMIT: AtomicUsize = AtomicUsize::new(256 << 20);
static REQUEST_LOG: AtomicUsize = AtomicUsize::new(0);

/// Engines are leaked on purpose, so a pointer that was once stored here stays valid.
#[allow(unsafe_code)]
fn current() -> Option<&'static Cell> {
    // SAFETY: null, or from `Box::leak`.
    unsafe { CURRENT.load(Acquire).as_ref() }
}

pub fn engine() -> PyResult<&'static Arc<Engine>> {
    let cell = match current().filter(|cell| cell.generation == generation()) {
        Some(cell) => cell,
        None => {
            let before = current().map_or(std::ptr::null_mut(), |c| std::ptr::from_ref(c).cast_mut());
            let fresh: &'static mut Cell =
                Box::leak(Box::new(Cell { generation: generation(), engine: OnceLock::new() }));
            // Of two threads that come here at once one wins; the other's empty cell is a few bytes.
            let _ = CURRENT.compare_exchange(before, fresh, AcqRel, Acquire);
            match current() {
                Some(cell) => cell,
                None => unreachable!("one was just stored"),
            }
        }
    };
    if let Some(engine) = cell.engine.get() {
        return Ok(engine);
    }
    // Where no GIL keeps a second thread out, its engine stays without work.
    let engine = Engine::start(LANES.load(Relaxed), MEMORY_LIMIT.load(Relaxed))?;
    engine.log.enable(REQUEST_LOG.load(Relaxed) != 0);
    Ok(cell.engine.get_or_init(|| engine))
}

pub fn started() -> Option<&'static Arc<Engine>> {
    current().filter(|cell| cell.generation == generation())?.engine.get()
}

/// Something of the engine's that Python holds. In the child of a fork it can be neither used nor dropped, since the parent's
/// threads, which may have held its locks, do not exist there: it is forgotten.
pub struct Local<T> {
    value: Option<T>,
    generation: u32,
}

impl<T> Local<T> {
    pub fn new(value: T) -> Local<T> {
        Local { value: Some(value), generation: generation() }
    }

    pub fn get(&self) -> PyResult<&T> {
        check(self.generation)?;
        self.value.as_ref().ok_or_else(|| ForeignProcessError::new_err("already given up"))
    }

    /// For drop: None in another process.
    pub fn mine(&self) -> Option<&T> {
        self.value.as_ref().filter(|_| self.generation == generation())
    }
}

impl<T> Drop for Local<T> {
    fn drop(&mut self) {
        if self.generation != generation() {
            std::mem::forget(self.value.take());
        }
    }
}

/// What was made before a fork must not be used after it.
fn check(made_in: u32) -> PyResult<()> {
    if made_in == generation() {
        return Ok(());
    }
    Err(ForeignProcessError::new_err("made in another process, before a fork"))
}

#[pyfunction]
#[pyo3(signature = (*, lanes, memory_limit_bytes))]
pub fn start(lanes: usize, memory_limit_bytes: usize) {
    if started().is_none() {
        LANES.store(lanes.clamp(1, 256), Relaxed);
        MEMORY_LIMIT.store(memory_limit_bytes.max(1 << 20), Relaxed);
    }
}

#[pyfunction]
pub fn after_fork_in_child() {
    s3dataset_engine::raw::after_fork_in_child();
}

#[pyfunction]
pub fn set_request_log(enabled: bool) {
    REQUEST_LOG.store(usize::from(enabled), Relaxed);
    if let Some(engine) = started() {
        engine.log.enable(enabled);
    }
}

#[pyfunction]
pub fn drain_request_log(py: Python<'_>, timeout_s: f64) -> PyResult<Vec<Bound<'_, PyDict>>> {
    let Some(engine) = started() else {
        py.detach(|| std::thread::sleep(seconds(timeout_s).min(Duration::from_millis(100))));
        return Ok(Vec::new());
    };
    let records = py.detach(|| engine.log.drain(seconds(timeout_s)));
    let convert = |r: s3dataset_engine::stats::Record| {
        let dict = PyDict::new(py);
        dict.set_item("operation", r.operation)?;
        dict.set_item("bucket", r.bucket)?;
        dict.set_item("key", r.key)?;
        dict.set_item("range", r.range)?;
        dict.set_item("attempt", r.attempt)?;
        dict.set_item("status", r.status)?;
        dict.set_item("request_id", r.request_id)?;
        dict.set_item("ttfb_s", r.ttfb_s)?;
        dict.set_item("duration_s", r.duration_s)?;
        dict.set_item("bytes_in", r.bytes_in)?;
        dict.set_item("bytes_out", r.bytes_out)?;
        dict.set_item("error", r.error)?;
        Ok(dict)
    };
    records.into_iter().map(convert).collect()
}

#[pyfunction]
pub fn process_stats(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    let engine = started();
    dict.set_item("lanes", engine.map_or(0, |e| e.lanes.len()))?;
    dict.set_item("memory_limit_bytes", engine.map_or(MEMORY_LIMIT.load(Relaxed), |e| e.budget.limit()))?;
    dict.set_item("memory_in_use_bytes", engine.map_or(0, |e| e.budget.used()))?;
    dict.set_item("memory_pooled_bytes", engine.map_or(0, |e| e.pool.idle_bytes()))?;
    Ok(dict)
}

/// A duration of Python's; negative and absurd ones are cut.
pub fn seconds(s: f64) -> Duration {
    Duration::from_secs_f64(if s.is_finite() { s.clamp(0.0, 1e9) } else { 1e9 })
}

/// How long a wait goes on before it looks at signals.
const SLICE: Duration = Duration::from_millis(100);

/// Runs this with the GIL. A daemon thread that comes back when there is no interpreter any more stays here, as Python's own
/// do, until the process has ended.
pub fn attached<T>(run: impl for<'py> FnOnce(Python<'py>) -> T) -> T {
    match Python::try_attach(run) {
        Some(result) => result,
        None => loop {
            std::thread::park();
        },
    }
}

/// Repeats `wait` without the GIL, in slices, until it has something or the time is over.
pub fn wait<T: Send>(
    py: Python<'_>,
    timeout_s: Option<f64>,
    mut wait: impl FnMut(Duration) -> Option<T> + Send,
) -> PyResult<Option<T>> {
    let until = timeout_s.map(|s| std::time::Instant::now() + seconds(s));
    loop {
        let left = until.map_or(SLICE, |u| u.saturating_duration_since(std::time::Instant::now()).min(SLICE));
        if let Some(found) = py.detach(|| wait(left)) {
            return Ok(Some(found));
        }
        py.check_signals()?;
        if left.is_zero() {
            return Ok(None);
        }
    }
}
