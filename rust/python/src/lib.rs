//! The module `s3dataset._native`: converts and forwards, nothing else. `_native.pyi` documents it.
#![deny(unsafe_code)]

mod client;
mod functions;
mod local_s3;
mod memory;
mod process;
mod queue;
mod received;
mod results;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
fn _native(m: &Bound<'_, PyModule>) -> PyResult<()> {
    s3dataset_engine::raw::watch_forks();
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add("ForeignProcessError", m.py().get_type::<process::ForeignProcessError>())?;
    m.add_class::<client::PyRoute>()?;
    m.add_class::<client::PyClient>()?;
    m.add_class::<queue::PyQueue>()?;
    m.add_class::<memory::PyBody>()?;
    m.add_class::<memory::PyBuffer>()?;
    m.add_class::<results::PyReply>()?;
    m.add_class::<results::PyListPage>()?;
    m.add_class::<results::PyFailure>()?;
    m.add_function(wrap_pyfunction!(process::start, m)?)?;
    m.add_function(wrap_pyfunction!(process::after_fork_in_child, m)?)?;
    m.add_function(wrap_pyfunction!(process::set_request_log, m)?)?;
    m.add_function(wrap_pyfunction!(process::drain_request_log, m)?)?;
    m.add_function(wrap_pyfunction!(process::process_stats, m)?)?;
    m.add_function(wrap_pyfunction!(received::received_by_thread, m)?)?;
    m.add_function(wrap_pyfunction!(functions::combine_checksums, m)?)?;
    m.add_function(wrap_pyfunction!(functions::checksum, m)?)?;
    m.add_function(wrap_pyfunction!(functions::prefer_huge_pages, m)?)?;
    m.add_function(wrap_pyfunction!(functions::sign, m)?)?;
    m.add_function(wrap_pyfunction!(local_s3::run_local_s3, m)?)?;
    Ok(())
}
