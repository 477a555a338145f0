//! The HTTP side: two routes, few connections, and no patience.

use std::{
    convert::Infallible,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE as CONTENT_TYPE_HEADER, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};

/// The media type of OpenMetrics text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The text of [`super::encode`].
    pub text: String,
    /// Whether the gate protects: the answer to `/healthz`.
    pub is_enforcing: bool,
}

/// How much one who asks may take.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Connections at once; more wait in the kernel's queue.
    connections: usize,
    /// For the header of a request to come.
    header: Duration,
    /// For everything.
    whole: Duration,
    /// How old a page may be: whoever is on this machine can ask, and going through the tables takes time.
    fresh: Duration,
}

const LIMITS: Limits = Limits {
    connections: 16,
    header: Duration::from_secs(5),
    whole: Duration::from_secs(10),
    fresh: Duration::from_secs(1),
};

/// Serves `/metrics` and `/healthz` for ever; ends when it is dropped. `page` is asked for at most once a second.
pub async fn serve(listener: TcpListener, page: impl Fn() -> Result<Page>) -> Infallible {
    serve_within(LIMITS, listener, page).await
}

async fn serve_within(limits: Limits, listener: TcpListener, page: impl Fn() -> Result<Page>) -> Infallible {
    let source = Source { page, fresh: limits.fresh, latest: Mutex::default() };
    let mut open = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if open.len() < limits.connections => match accepted {
                Ok((stream, _)) => open.push(converse(limits, stream, &source)),
                // Out of descriptors, most likely: others must end first.
                Err(_) => sleep(Duration::from_millis(100)).await,
            },
            Some(()) = open.next() => {}
        }
    }
}

fn converse<'a, F: Fn() -> Result<Page>>(
    limits: Limits,
    stream: TcpStream,
    source: &'a Source<F>,
) -> impl Future<Output = ()> + 'a {
    let answer = service_fn(move |request: Request<Incoming>| {
        std::future::ready(Ok::<_, Infallible>(source.answer(request.method(), request.uri().path())))
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.header).keep_alive(false).max_buf_size(8192);
    let connection = http.serve_connection(TokioIo::new(stream), answer);
    async move {
        // Whoever is too slow or speaks something else is cut off; that is no news.
        let _ = timeout(limits.whole, connection).await;
    }
}

/// The page, and the latest one that was made.
struct Source<F> {
    page: F,
    fresh: Duration,
    latest: Mutex<Option<(Instant, Arc<Page>)>>,
}

impl<F: Fn() -> Result<Page>> Source<F> {
    fn get(&self) -> Result<Arc<Page>> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, page)) = latest.as_ref()
            && made.elapsed() < self.fresh
        {
            return Ok(Arc::clone(page));
        }
        let page = Arc::new((self.page)()?);
        *latest = Some((Instant::now(), Arc::clone(&page)));
        Ok(page)
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if !matches!(path, "/metrics" | "/healthz") {
            return plain(StatusCode::NOT_FOUND, "there is /metrics and /healthz\n".to_owned());
        }
        if method != Method::GET {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            return response;
        }
        let page = match self.get() {
            Ok(page) => page,
            Err(error) => return plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")),
        };
        match (path, page.is_enforcing) {
            ("/metrics", _) => response(StatusCode::OK, CONTENT_TYPE, page.text.clone()),
            (_, true) => plain(StatusCode::OK, "ok\n".to_owned()),
            (_, false) => plain(StatusCode::SERVICE_UNAVAILABLE, "not enforcing\n".to_owned()),
        }
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", text)
}

fn response(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE_HEADER, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{SocketAddr, TcpStream as Client},
        sync::atomic::{AtomicBool, AtomicUsize, Ordering},
        thread,
    };

    use super::*;

    /// What a scrape finds; changed by tests while the server runs.
    #[derive(Default)]
    struct Gate {
        is_enforcing: AtomicBool,
        is_broken: AtomicBool,
        asked: AtomicUsize,
    }

    /// A server on a thread of its own.
    struct Server {
        address: SocketAddr,
        gate: Arc<Gate>,
    }

    const NO_CACHE: Limits = Limits { fresh: Duration::ZERO, ..LIMITS };

    impl Server {
        fn start(limits: Limits) -> Self {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            listener.set_nonblocking(true).expect("a socket of our own");
            let address = listener.local_addr().expect("it is bound");
            let gate = Arc::new(Gate::default());
            let known = Arc::clone(&gate);
            // It ends with the process.
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(async {
                    let listener = TcpListener::from_std(listener).expect("a listener");
                    serve_within(limits, listener, || known.page()).await
                })
            });
            Self { address, gate }
        }

        fn connect(&self) -> Client {
            let client = Client::connect(self.address).expect("it listens");
            client.set_read_timeout(Some(Duration::from_secs(20))).expect("a time");
            client
        }

        /// The status line, the headers and the body of an answer.
        fn ask(&self, request: &str) -> (String, String, String) {
            let mut client = self.connect();
            write!(client, "{request} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
            let mut answer = String::new();
            client.read_to_string(&mut answer).expect("an answer, and its end");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
            let (status, headers) = head.split_once("\r\n").expect("headers");
            (status.to_owned(), headers.to_lowercase(), body.to_owned())
        }
    }

    impl Gate {
        fn page(&self) -> Result<Page> {
            anyhow::ensure!(!self.is_broken.load(Ordering::Relaxed), "no map GRANTS");
            let asked = self.asked.fetch_add(1, Ordering::Relaxed);
            Ok(Page {
                text: format!("page {asked}\n# EOF\n"),
                is_enforcing: self.is_enforcing.load(Ordering::Relaxed),
            })
        }
    }

    #[test]
    fn metrics_are_served_with_their_media_type() {
        let (status, headers, body) = Server::start(LIMITS).ask("GET /metrics");

        assert_eq!((status.as_str(), body.as_str()), ("HTTP/1.1 200 OK", "page 0\n# EOF\n"));
        assert!(headers.contains(&format!("content-type: {CONTENT_TYPE}")), "{headers}");
        assert!(headers.contains("connection: close"), "{headers}");
    }

    #[test]
    fn health_follows_the_gate() {
        let server = Server::start(NO_CACHE);
        let health = || {
            let (status, _, body) = server.ask("GET /healthz");
            (status, body)
        };

        assert_eq!(health(), ("HTTP/1.1 503 Service Unavailable".to_owned(), "not enforcing\n".to_owned()));
        server.gate.is_enforcing.store(true, Ordering::Relaxed);
        assert_eq!(health(), ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned()));
        server.gate.is_broken.store(true, Ordering::Relaxed);
        assert_eq!(health(), ("HTTP/1.1 500 Internal Server Error".to_owned(), "no map GRANTS\n".to_owned()));
    }

    #[test]
    fn nothing_else_is_served() {
        let server = Server::start(LIMITS);

        for path in ["/", "/metrics/", "/metrics2", "//metrics", "/healthz/x", "*"] {
            assert_eq!(server.ask(&format!("GET {path}")).0, "HTTP/1.1 404 Not Found", "{path}");
        }
        for method in ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"] {
            let (status, headers, _) = server.ask(&format!("{method} /metrics"));
            assert_eq!(status, "HTTP/1.1 405 Method Not Allowed", "{method}");
            assert!(headers.contains("allow: get"), "{method}: {headers}");
        }
        assert_eq!(server.ask("GET /metrics?x=1").0, "HTTP/1.1 200 OK");
    }

    #[test]
    fn a_page_is_made_once_for_all_who_ask_within_its_time() {
        let server = Server::start(Limits { fresh: Duration::from_secs(3600), ..LIMITS });

        let bodies: Vec<_> = (0..5).map(|_| server.ask("GET /metrics").2).collect();

        assert!(bodies.iter().all(|body| body == "page 0\n# EOF\n"), "{bodies:?}");
        assert_eq!(server.gate.asked.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn one_who_sends_no_header_is_cut_off() {
        let limits =
            Limits { header: Duration::from_millis(100), whole: Duration::from_secs(3600), ..LIMITS };
        let server = Server::start(limits);
        let mut slow = server.connect();
        slow.write_all(b"GET /metrics HTTP/1.1\r\nHost:").expect("it reads");

        let mut answer = String::new();
        slow.read_to_string(&mut answer).expect("its end");

        assert!(!answer.contains("200"), "{answer}");
    }

    #[test]
    fn one_who_reads_nothing_is_cut_off() {
        let limits = Limits { whole: Duration::from_millis(300), header: Duration::from_secs(60), ..LIMITS };
        let server = Server::start(limits);
        let mut idle = server.connect();

        assert_eq!(idle.read(&mut [0; 1]).expect("its end"), 0);
    }

    #[test]
    fn more_than_the_bound_wait_until_others_end() {
        let server = Server::start(Limits { connections: 2, ..NO_CACHE });
        let idle = [server.connect(), server.connect()];
        let mut third = server.connect();
        third.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("the kernel's buffer");
        third.set_read_timeout(Some(Duration::from_millis(300))).expect("a time");

        let early = third.read(&mut [0; 1]).map_err(|error| error.kind());
        assert_eq!(early, Err(std::io::ErrorKind::WouldBlock), "it is to wait");
        drop(idle);

        third.set_read_timeout(Some(Duration::from_secs(20))).expect("a time");
        let mut answer = String::new();
        third.read_to_string(&mut answer).expect("an answer, and its end");
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
}
