//! Memory that Python sees: bodies, and buffers to fill.
#![allow(unsafe_code)]

use crate::process::Local;
use pyo3::exceptions::{PyBufferError, PyIndexError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use s3dataset_engine::budget::Grant;
use s3dataset_engine::raw::{PooledBuffer, Scattered, Span};
use s3dataset_engine::request::{Body, headers_of};
use std::ffi::c_int;

/// A buffer that an object exports: plain bytes, one behind the other, kept alive and in place while this lives. (PyO3's own
/// type asks for strides, which ctypes and its shared memory do not tell.)
struct View(Box<ffi::Py_buffer>);

// SAFETY: it is released with the GIL held, whichever thread does it; the memory is reached through spans only.
unsafe impl Send for View {}

impl View {
    fn of(object: &Bound<'_, PyAny>, flags: c_int) -> PyResult<View> {
        let mut view = Box::new(ffi::Py_buffer::new());
        // SAFETY: both pointers are valid; a view that could not be filled has no owner, so that releasing it does nothing.
        match unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &raw mut *view, flags) } {
            0 => Ok(View(view)),
            _ => Err(PyErr::fetch(object.py())),
        }
    }

    fn of_use(object: &Bound<'_, PyAny>, writable: bool) -> PyResult<View> {
        let py = object.py();
        View::of(object, if writable { ffi::PyBUF_WRITABLE } else { ffi::PyBUF_SIMPLE }).map_err(|cause| {
            let is_buffer = !cause.is_instance_of::<PyTypeError>(py);
            let error = if writable && (!is_buffer || View::of(object, ffi::PyBUF_SIMPLE).is_ok()) {
                PyTypeError::new_err("argument must be a writable bytes-like object")
            } else if is_buffer {
                PyBufferError::new_err(format!("the buffer is not C-contiguous, or not to be had: {}", cause.value(py)))
            } else {
                PyTypeError::new_err("argument must be a bytes-like object")
            };
            error.set_cause(py, Some(cause));
            error
        })
    }

    fn span(&self) -> Span {
        // SAFETY: pinned while this lives, which the queue sees to until the engine has given the memory up.
        unsafe { Span::new(self.0.buf.cast(), usize::try_from(self.0.len).unwrap_or(0)) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: filled in `of`, released once. At the interpreter's end it is left to the process's.
        Python::try_attach(|_| unsafe { ffi::PyBuffer_Release(&raw mut *self.0) });
    }
}

/// The memory of a caller that a request uses, kept alive and in place while this lives.
pub struct Export {
    _memory: Memory,
}

#[allow(dead_code)] // held, not looked at
enum Memory {
    One(View),
    Several(Vec<View>, Scattered),
}

impl Export {
    /// Drops it where the GIL is known to be held.
    pub fn release(self, _py: Python<'_>) {
        drop(self);
    }
}

/// A caller's memory as the engine sees it: a buffer, or a list or tuple of them, which count as one behind the other.
pub fn foreign(object: &Bound<'_, PyAny>, writable: bool) -> PyResult<(Export, Span)> {
    if !(object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>()) {
        let view = View::of_use(object, writable)?;
        let span = view.span();
        return Ok((Export { _memory: Memory::One(view) }, span));
    }
    let of_item = |item: PyResult<Bound<'_, PyAny>>| View::of_use(&item?, writable);
    let views = object.try_iter()?.map(of_item).collect::<PyResult<Vec<View>>>()?;
    let list = Scattered::new(views.iter().map(View::span));
    // SAFETY: the export keeps the memory and the list.
    let span = unsafe { list.span() };
    Ok((Export { _memory: Memory::Several(views, list) }, span))
}

/// # Safety
/// As for `bf_getbuffer`: `view` is valid, and `owner` keeps `span` alive while it lives.
unsafe fn fill_view<T: pyo3::PyClass>(
    owner: Bound<'_, T>,
    span: Span,
    view: *mut ffi::Py_buffer,
    flags: c_int,
) -> PyResult<()> {
    // An empty body has no address, which some consumers take for an error.
    static NOTHING: [u8; 1] = [0];
    let ptr = if span.is_empty() { NOTHING.as_ptr().cast_mut() } else { span.as_ptr() };
    // SAFETY: the caller's promise.
    let failed = unsafe { ffi::PyBuffer_FillInfo(view, owner.as_ptr(), ptr.cast(), span.len() as isize, 0, flags) };
    if failed != 0 { Err(PyErr::fetch(owner.py())) } else { Ok(()) }
}

#[pyclass(frozen, name = "Body", module = "s3dataset._native")]
pub struct PyBody {
    body: Body,
}

impl From<Body> for PyBody {
    fn from(body: Body) -> PyBody {
        PyBody { body }
    }
}

#[pymethods]
impl PyBody {
    fn __len__(&self) -> usize {
        self.body.buffer.len()
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let span = slf.get().body.buffer.span();
        // SAFETY: Python's own call; the view holds a reference to `slf`, which owns the memory.
        unsafe { fill_view(slf, span, view, flags) }
    }

    #[getter]
    fn nbytes(&self) -> usize {
        self.body.buffer.len()
    }

    /// Of the whole object, as a reader's.
    #[getter]
    fn size(&self) -> u64 {
        self.body.object_size
    }

    #[getter]
    fn uri(&self) -> String {
        format!("s3://{}/{}", self.body.target.route.bucket, self.body.target.key)
    }

    #[getter]
    fn start(&self) -> u64 {
        self.body.start
    }

    #[getter]
    fn object_size(&self) -> u64 {
        self.body.object_size
    }

    #[getter]
    fn etag(&self) -> &str {
        &self.body.etag
    }

    #[getter]
    fn last_modified(&self) -> Option<f64> {
        self.body.last_modified.map(|s| s as f64)
    }

    fn headers(&self) -> Vec<(String, String)> {
        headers_of(&self.body.head)
    }

    fn __repr__(&self) -> String {
        let (nbytes, start) = (self.body.buffer.len(), self.body.start);
        format!("<Body {}: {nbytes} bytes from {start} of {}>", self.uri(), self.body.object_size)
    }
}

#[pyclass(frozen, name = "Buffer", module = "s3dataset._native")]
pub struct PyBuffer {
    buffer: PooledBuffer,
    _grant: Local<Grant>,
}

impl PyBuffer {
    pub fn new(buffer: PooledBuffer, grant: Grant) -> PyBuffer {
        PyBuffer { buffer, _grant: Local::new(grant) }
    }
}

/// From here on a copy is worth letting other threads run.
const LARGE_COPY: usize = 256 << 10;

#[pymethods]
impl PyBuffer {
    fn __len__(&self) -> usize {
        self.buffer.len()
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let span = slf.get().buffer.span();
        // SAFETY: as for Body.
        unsafe { fill_view(slf, span, view, flags) }
    }

    #[pyo3(signature = (offset, data, /))]
    fn copy_from(&self, py: Python<'_>, offset: usize, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let (export, source) = foreign(data, false)?;
        if offset > self.buffer.len() {
            return Err(PyIndexError::new_err(format!("offset {offset} in a buffer of {} bytes", self.buffer.len())));
        }
        let n = source.len().min(self.buffer.len() - offset);
        let (from, to) = (source.slice(0, n), self.buffer.span().slice(offset, n));
        if n >= LARGE_COPY {
            py.detach(|| to.copy_from_span(from));
        } else {
            to.copy_from_span(from);
        }
        export.release(py);
        Ok(n)
    }
}
