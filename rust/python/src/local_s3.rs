//! The local S3, for `python -m s3dataset.testing`.
use pyo3::prelude::*;

/// Serves until stdin ends and prints one line of JSON when it listens.
///
/// It runs in a process of its own, so that neither side's threads, signals and GIL matter to the other.
#[pyfunction]
#[pyo3(signature = (config_json, /))]
pub fn run_local_s3(py: Python<'_>, config_json: &str) -> PyResult<()> {
    py.detach(|| {
        s3dataset_local_s3::run(config_json, |ready| {
            // A parent that has gone cannot read the line; the end of stdin ends the server then.
            let _ = ready.print();
        })
    })?;
    Ok(())
}
