//! A headless Chromium, driven through chromedriver.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use fantoccini::error::CmdError;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use qshare_tests::process::{PATIENCE, Process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::has_programs;

/// Interval at which a condition in a page is checked.
const LOOK_AGAIN_MS: u64 = 50;

/// A browser with one window. It ends with the value.
pub(super) struct Browser {
    runtime: Runtime,
    client: Option<Client>,
    _driver: Process,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser; None if none is installed. Every host name that ends in `.example` is this
    /// machine to it.
    pub(super) fn start() -> Option<Browser> {
        if !has_programs(&["chromium", "chromedriver"]) {
            return None;
        }
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").env("HOME", profile.path());
        let driver = Process::start(command);
        let port: u16 = driver.out_line(|line| {
            let (_, port) = line.split_once("successfully on port ")?;
            port.trim_end_matches('.').parse().ok()
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let user_data = format!("--user-data-dir={}", profile.path().join("data").display());
        let arguments = [
            "--headless=new",
            // Chromium's sandbox cannot be used by root, as whom tests run in CI.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--window-size=1280,900",
            "--autoplay-policy=no-user-gesture-required",
            "--host-resolver-rules=MAP *.example 127.0.0.1",
            &user_data,
        ];
        // The certificate of a test is signed by nobody.
        let capabilities = json!({
            "goog:chromeOptions": {"args": arguments},
            "acceptInsecureCerts": true,
        });
        let client = runtime.block_on(async {
            ClientBuilder::new(HttpConnector::new())
                .capabilities(capabilities.as_object().unwrap().clone())
                .connect(&format!("http://127.0.0.1:{port}"))
                .await
                .unwrap()
        });
        Some(Browser {
            runtime,
            client: Some(client),
            _driver: driver,
            _profile: profile,
        })
    }

    fn client(&self) -> &Client {
        self.client.as_ref().unwrap()
    }

    /// Sets the size of the page in CSS pixels.
    pub(super) fn resize(&self, width: u32, height: u32) {
        let chrome = |script| self.js(script).as_u64().unwrap() as u32;
        let set = |width, height| {
            let size = self.client().set_window_size(width, height);
            self.runtime.block_on(size).unwrap();
        };
        set(width.max(600), height);
        let frame = chrome("return window.outerHeight - window.innerHeight");
        set(width, height + frame);
    }

    /// Opens a page.
    pub(super) fn open(&self, url: &str) {
        self.runtime.block_on(self.client().goto(url)).unwrap();
    }

    /// Runs a function body in the page and returns its value.
    pub(super) fn js(&self, script: &str) -> Value {
        let value = self.client().execute(script, Vec::new());
        self.runtime
            .block_on(value)
            .unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Runs the body of an async function in the page and waits for its value.
    pub(super) fn js_async(&self, script: &str) -> Value {
        let wrapped = format!(
            "const done = arguments[arguments.length - 1];
             (async () => {{ {script} }})().then(done, (error) => done('threw ' + error.name));"
        );
        let value = self.client().execute_async(&wrapped, Vec::new());
        self.runtime
            .block_on(value)
            .unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Waits until a function body in the page returns something that is true, and returns that.
    pub(super) fn until(&self, script: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.js(script);
            let is_true = match &value {
                Value::Null => false,
                Value::Bool(is_true) => *is_true,
                Value::String(text) => !text.is_empty(),
                _ => true,
            };
            if is_true {
                return value;
            }
            assert!(
                Instant::now() < deadline,
                "{script}: not within {PATIENCE:?}\n{}",
                self.js("return document.body.innerText")
            );
            let pause = std::time::Duration::from_millis(LOOK_AGAIN_MS);
            self.runtime
                .block_on(async { tokio::time::sleep(pause).await });
        }
    }

    /// Clicks the first element of a selector, as a person does: it has to be visible and at rest.
    ///
    /// Rows get their heights when they are scrolled into the window. WebDriver scrolls, asks for
    /// the element's place and clicks there, without a look at what has moved in between.
    pub(super) fn click(&self, selector: &str) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.try_click(selector) {
            // It has moved or gone since it was looked at.
            assert!(Instant::now() < deadline, "{selector}: {error}");
        }
    }

    fn try_click(&self, selector: &str) -> Result<(), CmdError> {
        let selected = json!(selector);
        self.until(&format!(
            "const element = document.querySelector({selected});
             return element !== null && element.checkVisibility() && !element.disabled"
        ));
        let at_rest = format!(
            "const frame = () => new Promise(requestAnimationFrame);
             const place = () => {{
               const element = document.querySelector({selected});
               element.scrollIntoView({{ block: 'nearest', behavior: 'instant' }});
               const {{ x, y }} = element.getBoundingClientRect();
               return `${{x}} ${{y}}`;
             }};
             for (let last = '', same = 0; same < 3;) {{
               await frame();
               const now = place();
               same = now === last ? same + 1 : 0;
               last = now;
             }}"
        );
        assert_eq!(self.js_async(&at_rest), Value::Null);
        self.runtime.block_on(async {
            let element = self.client().find(Locator::Css(selector)).await?;
            element.click().await
        })
    }

    /// Types a text into the first element of a selector.
    pub(super) fn type_into(&self, selector: &str, text: &str) {
        self.runtime.block_on(async {
            let element = self.client().find(Locator::Css(selector)).await.unwrap();
            element.send_keys(text).await.unwrap();
        });
    }

    /// Presses keys wherever the focus is.
    pub(super) fn press(&self, keys: &str) {
        self.runtime.block_on(async {
            let element = self.client().active_element().await.unwrap();
            element.send_keys(keys).await.unwrap();
        });
    }

    /// Runs further scripts in the first frame of the page.
    pub(super) fn enter_frame(&self) {
        self.runtime.block_on(self.client().enter_frame(0)).unwrap();
    }

    /// Writes what the window shows as PNG.
    pub(super) fn picture(&self, path: &Path) {
        let png = self.runtime.block_on(self.client().screenshot()).unwrap();
        std::fs::write(path, png).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Without this chromedriver would leave the browser behind when it is killed.
        if let Some(client) = self.client.take() {
            let _ = self.runtime.block_on(client.close());
        }
    }
}
