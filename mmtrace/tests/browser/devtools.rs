//! A browser without a window, driven by its DevTools protocol: the little of it that tests need.

use std::{
    env, fmt,
    io::{BufRead as _, BufReader},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket, client};

/// What browsers of the family that speaks this protocol are called.
const NAMES: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// A browser that does not answer for so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The browser to test with; `None` if there is none.
pub(crate) fn installed() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let places: Vec<PathBuf> = env::split_paths(&path).collect();
    let candidates = NAMES
        .iter()
        .flat_map(|name| places.iter().map(move |place| place.join(name)));
    candidates.into_iter().find(|candidate| candidate.is_file())
}

/// A page in a browser of its own.
pub(crate) struct Page {
    browser: Child,
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    last_id: u64,
    events: Vec<Event>,
    // Removed last, when the browser has ended.
    _profile: TempDir,
}

/// Something that the browser tells without having been asked.
pub(crate) struct Event {
    pub(crate) method: String,
    pub(crate) parameters: Value,
}

impl Page {
    /// Starts `browser` and opens the file in it, in a window of this size.
    pub(crate) fn open(browser: &Path, file: &Path, [width, height]: [u32; 2]) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new(browser);
        command
            .args([
                "--headless",
                "--disable-gpu",
                "--no-first-run",
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // Its sandbox refuses to be set up by root.
        if rustix::process::geteuid().is_root() {
            command.arg("--no-sandbox");
        }
        let mut browser = command.spawn().unwrap();
        let lines = BufReader::new(browser.stderr.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        let url = lines
            .find_map(|line| {
                line.strip_prefix("DevTools listening on ")
                    .map(str::to_owned)
            })
            .expect("the browser says where it listens");
        // Else it would end when it says more.
        std::thread::spawn(move || lines.for_each(drop));
        let address = url.trim_start_matches("ws://").split('/').next().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = client(&url, stream).unwrap();
        let mut page = Self {
            browser,
            socket,
            session: None,
            last_id: 0,
            events: Vec::new(),
            _profile: profile,
        };
        let target = page.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached = page.call(
            "Target.attachToTarget",
            json!({"targetId": target["targetId"], "flatten": true}),
        );
        page.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        // Windows without a screen have a least width, which is more than a telephone's.
        page.call(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}),
        );
        page.call(
            "Page.navigate",
            json!({"url": format!("file://{}", file.display())}),
        );
        page.wait_for("Page.loadEventFired");
        page
    }

    /// Calls a method of the protocol and returns its result.
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last_id += 1;
        let mut message = json!({"id": self.last_id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.socket
            .send(Message::text(message.to_string()))
            .unwrap();
        loop {
            let mut answer = self.receive();
            if answer["id"] == self.last_id {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].take();
            }
        }
    }

    /// The next message; events are kept.
    fn receive(&mut self) -> Value {
        loop {
            let message = self.socket.read().expect("the browser answers in time");
            let Message::Text(text) = message else {
                continue;
            };
            let mut message: Value = serde_json::from_str(&text).unwrap();
            if let Some(method) = message["method"].as_str() {
                self.events.push(Event {
                    method: method.to_owned(),
                    parameters: message["params"].take(),
                });
            }
            return message;
        }
    }

    fn wait_for(&mut self, event: &str) {
        while !self.events.iter().any(|known| known.method == event) {
            self.receive();
        }
    }

    /// The value of an expression.
    pub(crate) fn value(&mut self, expression: impl fmt::Display) -> Value {
        let parameters = json!({
            "expression": expression.to_string(),
            "returnByValue": true,
            "awaitPromise": true,
        });
        let mut result = self.call("Runtime.evaluate", parameters);
        let thrown = &result["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {thrown}");
        result["result"]["value"].take()
    }

    /// The text of the first element that fits the selector.
    pub(crate) fn text(&mut self, selector: &str) -> String {
        let text = self.value(format_args!(
            "document.querySelector({}).textContent",
            json!(selector)
        ));
        text.as_str().unwrap().to_owned()
    }

    /// The texts of all elements that fit the selector.
    pub(crate) fn texts(&mut self, selector: &str) -> Vec<String> {
        let texts = self.value(format_args!(
            "Array.from(document.querySelectorAll({}), (e) => e.textContent)",
            json!(selector)
        ));
        serde_json::from_value(texts).unwrap()
    }

    /// Clicks on the middle of the first element that fits the selector.
    pub(crate) fn click(&mut self, selector: &str) {
        let middle = self.value(format_args!(
            "(() => {{ const e = document.querySelector({}); e.scrollIntoView({{ block: 'center' }}); \
             const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; }})()",
            json!(selector)
        ));
        let [x, y]: [f64; 2] = serde_json::from_value(middle).unwrap();
        self.click_at(x, y);
    }

    /// Clicks on a place in the window.
    pub(crate) fn click_at(&mut self, x: f64, y: f64) {
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            let button = if kind == "mouseMoved" { "none" } else { "left" };
            self.call(
                "Input.dispatchMouseEvent",
                json!({"type": kind, "x": x, "y": y, "button": button, "clickCount": 1}),
            );
        }
    }

    /// Types into what has the focus.
    pub(crate) fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Presses a key: its name, and its number if it is one that scrolls or acts by default.
    pub(crate) fn press(&mut self, key: &str) {
        let (text, number) = match key {
            "Enter" => ("\r", 13),
            _ => ("", 0),
        };
        let event = json!({"key": key, "text": text, "windowsVirtualKeyCode": number});
        for kind in ["keyDown", "keyUp"] {
            let mut event = event.clone();
            event["type"] = json!(kind);
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Waits until what has changed is laid out and drawn.
    pub(crate) fn settle(&mut self) {
        self.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))");
    }

    /// What was told so far.
    pub(crate) fn events(&self) -> &[Event] {
        &self.events
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nobody to tell.
        let _ = self.browser.kill();
        let _ = self.browser.wait();
    }
}
