//! Clients and routes.
use crate::memory::PyBuffer;
use crate::process::{Local, engine, seconds, started};
use crate::queue::{PyQueue, fetch_alone, fetch_of, version};
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use s3dataset_engine::client::{Client, Route, SecretHeaders, Settings};
use s3dataset_engine::connect::tls_config;
use s3dataset_engine::proxy::Proxies;
use s3dataset_engine::raw::MOST;
use s3dataset_engine::request::Target;
use s3dataset_engine::sign::Credentials;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

#[pyclass(frozen, name = "Route", module = "s3dataset._native")]
pub struct PyRoute(Local<Arc<Route>>);

impl PyRoute {
    pub fn get(&self) -> PyResult<&Arc<Route>> {
        self.0.get()
    }
}

#[pymethods]
impl PyRoute {
    #[new]
    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (
        bucket, *, scheme, host, port=None, path_prefix="".to_owned(), region, service="s3".to_owned(),
        session_headers=None
    ))]
    fn new(
        bucket: String,
        scheme: &str,
        host: String,
        port: Option<u16>,
        path_prefix: String,
        region: String,
        service: String,
        session_headers: Option<Vec<(String, String)>>,
    ) -> PyResult<PyRoute> {
        let tls = match scheme {
            "http" => false,
            "https" => true,
            other => return Err(PyValueError::new_err(format!("scheme {other:?} is neither http nor https"))),
        };
        let bad = |c: char| c.is_control() || c.is_whitespace();
        if host.is_empty() || [&host, &path_prefix, &region].iter().any(|s| s.contains(bad)) {
            return Err(PyValueError::new_err(format!("no valid endpoint: {scheme}://{host}{path_prefix} ({region})")));
        }
        let mut route = Route::new(bucket, tls, host, port, path_prefix, region, service);
        if let Some(headers) = session_headers {
            check_headers(&headers)?;
            route = route.with_sessions(headers);
        }
        Ok(PyRoute(Local::new(Arc::new(route))))
    }

    #[getter]
    fn bucket(&self) -> PyResult<&str> {
        Ok(&self.0.get()?.bucket)
    }

    #[getter]
    fn region(&self) -> PyResult<String> {
        Ok(self.0.get()?.place().region.clone())
    }

    fn __repr__(&self) -> String {
        let Some(route) = self.0.mine() else { return "<Route of another process>".to_owned() };
        let place = route.place();
        let scheme = if route.tls { "https" } else { "http" };
        format!("<Route {scheme}://{}{} region={}>", place.authority, route.path_prefix, place.region)
    }
}

#[pyclass(frozen, name = "Client", module = "s3dataset._native")]
pub struct PyClient(Local<Arc<Client>>);

impl Drop for PyClient {
    fn drop(&mut self) {
        if let Some(client) = self.0.mine() {
            client.close();
            if let Some(engine) = started() {
                engine.forget(client.id);
            }
        }
    }
}

/// S3's own limit; beyond it sums of sizes could overflow.
const LARGEST_PART: usize = 5 << 30;

fn check_headers(headers: &[(String, String)]) -> PyResult<()> {
    for (name, value) in headers {
        let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || !name.bytes().all(token) {
            return Err(PyValueError::new_err(format!("{name:?} is no header name in lower case")));
        }
        if value.bytes().any(|b| b < b' ' && b != b'\t' || b == 127) {
            return Err(PyValueError::new_err(format!("the value of header {name} has a control character")));
        }
    }
    Ok(())
}

#[pymethods]
impl PyClient {
    #[new]
    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (
        *, unsigned=false, user_agent, part_size=8 << 20, max_attempts=10, max_connections=256, large_in_flight=32,
        connect_timeout_s=3.0, first_byte_timeout_s=None, stall_timeout_s=15.0, retry_max_elapsed_s=600.0,
        save_max_elapsed_s=None, verify_reads=true, memory_limit_bytes=None, ca_bundle=None, headers=Vec::new(),
        proxy=None, object_headers=Vec::new()
    ))]
    fn new(
        unsigned: bool,
        user_agent: String,
        part_size: usize,
        max_attempts: u32,
        max_connections: usize,
        large_in_flight: usize,
        connect_timeout_s: f64,
        first_byte_timeout_s: Option<f64>,
        stall_timeout_s: f64,
        retry_max_elapsed_s: f64,
        save_max_elapsed_s: Option<f64>,
        verify_reads: bool,
        memory_limit_bytes: Option<usize>,
        ca_bundle: Option<&[u8]>,
        headers: Vec<(String, String)>,
        proxy: Option<(String, u16, Option<String>, String)>,
        object_headers: Vec<(String, String)>,
    ) -> PyResult<PyClient> {
        check_headers(&headers)?;
        check_headers(&object_headers)?;
        check_headers(&[("user-agent".to_owned(), user_agent.clone())])?;
        if max_attempts < 1 || max_connections < 1 || part_size < 1 {
            return Err(PyValueError::new_err("max_attempts, max_connections and part_size must be at least 1"));
        }
        if part_size > LARGEST_PART {
            return Err(PyValueError::new_err("part_size must be at most 5 GiB"));
        }
        let settings = Settings {
            unsigned,
            user_agent,
            part_size,
            max_attempts,
            max_connections,
            large_in_flight,
            connect_timeout: seconds(connect_timeout_s),
            first_byte_timeout: first_byte_timeout_s.map(seconds),
            stall_timeout: seconds(stall_timeout_s),
            retry_max_elapsed: seconds(retry_max_elapsed_s),
            verify_reads,
            save_max_elapsed: seconds(save_max_elapsed_s.unwrap_or(retry_max_elapsed_s)),
            headers,
            object_headers: SecretHeaders(object_headers),
        };
        let engine = engine()?;
        let budget = memory_limit_bytes.map_or_else(|| engine.budget.clone(), |limit| engine.new_budget(limit));
        let tls = ca_bundle.map(|pem| tls_config(Some(pem)).map_err(|fault| PyValueError::new_err(fault.message)));
        let proxies =
            proxy.map(|(host, port, authorization, no_proxy)| Proxies::new(host, port, authorization, &no_proxy));
        let client = Client::new(settings, tls.transpose()?, budget).with_proxies(proxies.unwrap_or_default());
        let client = Arc::new(client);
        engine.register(&client);
        Ok(PyClient(Local::new(client)))
    }

    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (route, key, start=None, end=None, size=None, pin=None, limit=None, version_id=None, verify=false, /))]
    fn fetch(
        &self,
        py: Python<'_>,
        route: &PyRoute,
        key: String,
        start: Option<i64>,
        end: Option<u64>,
        size: Option<u64>,
        pin: Option<String>,
        limit: Option<u64>,
        version_id: Option<&str>,
        verify: bool,
    ) -> PyResult<Py<PyAny>> {
        let fetch = fetch_of(start, end, size, limit, pin, verify)?;
        let target = Target { route: route.get()?.clone(), key: key.into(), version: version(version_id) };
        fetch_alone(py, engine()?.clone(), self.0.get()?.clone(), target, fetch)
    }

    fn queue(&self) -> PyResult<PyQueue> {
        let client = self.0.get()?;
        Ok(PyQueue::new(engine()?.clone(), client.clone()))
    }

    #[pyo3(signature = (size, /, *, force=false))]
    fn buffer(&self, size: usize, force: bool) -> PyResult<Option<PyBuffer>> {
        if size > MOST {
            return Err(PyMemoryError::new_err(format!("no memory for {size} bytes")));
        }
        let budget = &self.0.get()?.budget;
        let grant = if force { Some(budget.acquire_forced(size)) } else { budget.try_acquire(size) };
        let Some(grant) = grant else { return Ok(None) };
        let memory = engine()?.pool.take(size);
        let buffer = memory.ok_or_else(|| PyMemoryError::new_err(format!("no memory for {size} bytes")))?;
        Ok(Some(PyBuffer::new(buffer, grant)))
    }

    #[pyo3(signature = (access_key, secret_key, session_token, /))]
    fn set_credentials(&self, access_key: String, secret_key: String, session_token: Option<String>) -> PyResult<()> {
        let client = self.0.get()?;
        let headers =
            [("x".to_owned(), access_key.clone()), ("x".to_owned(), session_token.clone().unwrap_or_default())];
        check_headers(&headers).map_err(|_| PyValueError::new_err("the credentials have a control character"))?;
        client.set_credentials(Credentials { access_key, secret_key, session_token, of_session: false });
        Ok(())
    }

    #[pyo3(signature = (reason, /))]
    fn keep_credentials(&self, reason: String) -> PyResult<()> {
        self.0.get()?.keep_credentials(reason);
        Ok(())
    }

    #[pyo3(signature = (timeout_s, /))]
    fn wait_credentials_wanted(&self, py: Python<'_>, timeout_s: f64) -> PyResult<Option<String>> {
        let client = self.0.get()?;
        Ok(py.detach(|| client.wait_credentials_wanted(seconds(timeout_s))))
    }

    #[pyo3(signature = (reason, /))]
    fn refuse_credentials(&self, reason: String) -> PyResult<()> {
        self.0.get()?.refuse_credentials(reason);
        Ok(())
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let client = self.0.get()?;
        let stats = &client.stats;
        let dict = PyDict::new(py);
        for (name, value) in [
            ("requests", &stats.requests),
            ("bytes_in", &stats.bytes_in),
            ("bytes_out", &stats.bytes_out),
            ("retries", &stats.retries),
            ("throttles", &stats.throttles),
            ("reads_verified", &stats.reads_verified),
            ("reads_unverified", &stats.reads_unverified),
            ("hedges", &stats.hedges),
            ("uploads_in_doubt", &stats.uploads_in_doubt),
            ("connections_opened", &stats.connections_opened),
            ("connections_reused", &stats.connections_reused),
            ("connections_open", &stats.connections_open),
        ] {
            dict.set_item(name, value.load(Relaxed))?;
        }
        dict.set_item("in_flight", client.in_flight.load(Relaxed))?;
        dict.set_item("network_wait_s", stats.network_wait_us.load(Relaxed) as f64 / 1e6)?;
        dict.set_item("retries_by_cause", stats.causes())?;
        dict.set_item("ttfb_s", stats.ttfb.read())?;
        dict.set_item("latency_s", stats.latency.read())?;
        let operations = PyDict::new(py);
        for (name, count) in stats.operations() {
            operations.set_item(name, count)?;
        }
        dict.set_item("by_operation", operations)?;
        Ok(dict)
    }

    fn close(&self) -> PyResult<()> {
        let client = self.0.get()?;
        client.close();
        engine()?.forget(client.id);
        Ok(())
    }
}
