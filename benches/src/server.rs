//! Servers of the programs that qshare is compared with.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, bail, ensure};
use qshare_tests::process::eventually;

/// A server of another program, killed when the value is dropped.
pub struct Server(Child);

impl Server {
    /// Starts one that says on its standard output when it is ready: `ready` returns something for
    /// that line.
    pub fn start<T>(
        command: &mut Command,
        ready: impl Fn(&str) -> Option<T>,
    ) -> anyhow::Result<(Server, T)> {
        let child = command.stdout(Stdio::piped()).spawn();
        let mut server = Server(child.with_context(|| format!("{command:?}"))?);
        let out = server.0.stdout.take().context("it has an output")?;
        let mut lines = BufReader::new(out).lines();
        while let Some(line) = lines.next().transpose()? {
            if let Some(made) = ready(&line) {
                // Later output is discarded, so that a full pipe does not stop the server.
                thread::spawn(move || lines.for_each(drop));
                return Ok((server, made));
            }
        }
        bail!("{command:?} ended before it was ready")
    }

    /// Starts one, and waits until `is_ready` says that it takes connections.
    pub fn spawn(command: &mut Command, is_ready: impl Fn() -> bool) -> anyhow::Result<Server> {
        let server = Server(command.spawn().with_context(|| format!("{command:?}"))?);
        eventually("the server takes connections", || is_ready().then_some(()));
        Ok(server)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns whether `PROGRAM VERSION` can be started.
pub fn is_installed(program: &str, version: &str) -> bool {
    Command::new(program).arg(version).output().is_ok()
}

/// Returns whether a benchmark that needs curl is to measure; prints why if not. `bench` is what
/// `cargo bench` passes, and `cargo test` does not.
pub fn measures_with_curl(bench: bool) -> bool {
    if !bench {
        println!("nothing to test here; `cargo bench` measures");
        return false;
    }
    let installed = is_installed("curl", "--version");
    if !installed {
        println!("SKIPPED: curl is not installed");
    }
    installed
}

/// Removes a file or a directory.
pub fn remove(path: &Path) -> anyhow::Result<()> {
    if path.is_dir() {
        fs::remove_dir_all(path)?;
    } else {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Writes a configuration and a certificate for nginx into `dir`, which then serves the files of
/// `root` by HTTPS on `port`: TLS 1.3, sendfile, no log. Returns the configuration's path.
pub fn nginx_config(dir: &Path, root: &Path, port: u16) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(dir)?;
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec"])
        .args(["-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-nodes", "-subj", "/CN=qshare-bench", "-days", "1"])
        .arg("-keyout")
        .arg(dir.join("key.pem"))
        .arg("-out")
        .arg(dir.join("cert.pem"))
        .stderr(Stdio::null())
        .status()
        .context("openssl makes the certificate")?;
    ensure!(made.success(), "openssl made no certificate");
    let at = dir.display();
    let config = format!(
        "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;\n\
         events {{}}\n\
         http {{ access_log off; sendfile on;\n\
         client_body_temp_path {at}; proxy_temp_path {at}; fastcgi_temp_path {at};\n\
         uwsgi_temp_path {at}; scgi_temp_path {at};\n\
         server {{ listen {port} ssl; root {root};\n\
         ssl_certificate {at}/cert.pem; ssl_certificate_key {at}/key.pem; }} }}\n",
        root = root.display(),
    );
    let path = dir.join("nginx.conf");
    fs::write(&path, config)?;
    Ok(path)
}
