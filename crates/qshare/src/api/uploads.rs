//! Files that a browser sends, into the shared directory.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use http_body_util::BodyExt;
use qshare_node::content::AssetName;
use qshare_node::{DiskError, HashOptions, hash_file};
use tempfile::{NamedTempFile, PersistError};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::Api;
use super::error::{ApiError, Code};
use super::extract::{Json, Named};
use super::objects::Uploaded;

/// Prefix of a file that is being uploaded. Files that begin with a dot are not shared.
const UNFINISHED_PREFIX: &str = ".qshare-upload-";
/// Buffers on their way to the disk.
const BUFFERS: usize = 16;
/// An upload of which nothing arrives for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(60);

pub(super) async fn upload(
    State(api): State<Api>,
    Named(name): Named,
    request: Request,
) -> Result<(StatusCode, Json<Uploaded>), ApiError> {
    let name = file_name(&name)?;
    let path = api.assets.join(&name);
    if path.symlink_metadata().is_ok() {
        return Err(already_there(&path));
    }
    let (buffers, arriving) = mpsc::channel(BUFFERS);
    let (dir, last) = (api.assets.clone(), path.clone());
    let written = spawn_blocking(move || write(&dir, &last, arriving));
    let received = receive(request.into_body(), buffers).await;
    let written = written.await.map_err(internal)?;
    // If the disk failed, receiving was given up for that reason.
    let written = match (received, written) {
        (_, Err(error)) => return Err(error),
        (Err(error), Ok(_)) => return Err(error),
        (Ok(()), Ok(file)) => file,
    };
    let last = path.clone();
    let hashed = spawn_blocking(move || {
        persist(written, &last)?;
        hash_file(&last, &HashOptions::default()).map_err(|error| {
            ApiError::new(
                Code::Conflict,
                format!("cannot hash {}: {error}", last.display()),
            )
        })
    });
    let info = hashed.await.map_err(internal)??.info;
    let uploaded = Uploaded {
        name,
        path: path.display().to_string(),
        size_bytes: info.length,
        content: info.id().to_string(),
    };
    Ok((StatusCode::CREATED, Json(uploaded)))
}

/// Returns a name that is one component, and that is shared.
fn file_name(text: &str) -> Result<String, ApiError> {
    let invalid = |cause: String| {
        let message = format!("cannot store a file under this name: {cause}");
        ApiError::new(Code::BadRequest, message)
    };
    let name = AssetName::from_local(text).map_err(|error| invalid(error.to_string()))?;
    if name.as_str().contains('/') {
        return Err(invalid("it has a directory part".to_owned()));
    }
    if name.as_str().starts_with('.') {
        return Err(invalid(
            "files that begin with a dot are not shared".to_owned(),
        ));
    }
    Ok(name.to_string())
}

/// Passes the body on to the thread that writes it. Ends early if that thread has ended.
async fn receive(mut body: Body, buffers: mpsc::Sender<Option<Bytes>>) -> Result<(), ApiError> {
    loop {
        let frame = tokio::time::timeout(SILENCE_MAX, body.frame()).await;
        let Ok(frame) = frame else {
            let message = format!("nothing arrived for {} s", SILENCE_MAX.as_secs());
            return Err(ApiError::new(Code::BadRequest, message));
        };
        match frame {
            None => break,
            Some(Err(_)) => {
                return Err(ApiError::new(Code::BadRequest, "the body is incomplete"));
            }
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data()
                    && buffers.send(Some(bytes)).await.is_err()
                {
                    return Ok(());
                }
            }
        }
    }
    // The end of the channel alone does not tell a complete file from an interrupted one.
    let _ = buffers.send(None).await;
    Ok(())
}

/// Writes the buffers into a temporary file, which is deleted unless it is complete. Blocks.
fn write(
    dir: &Path,
    path: &Path,
    mut buffers: mpsc::Receiver<Option<Bytes>>,
) -> Result<NamedTempFile, ApiError> {
    let failed = |error| ApiError::from(DiskError::new("write", path, error));
    let mut file = tempfile::Builder::new()
        .prefix(UNFINISHED_PREFIX)
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(dir)
        .map_err(failed)?;
    while let Some(buffer) = buffers.blocking_recv() {
        match buffer {
            Some(bytes) => file.write_all(&bytes).map_err(failed)?,
            None => {
                file.as_file().sync_all().map_err(failed)?;
                return Ok(file);
            }
        }
    }
    Err(ApiError::new(Code::BadRequest, "the body is incomplete"))
}

/// Gives a complete file its name, unless another file has it. Blocks.
fn persist(file: NamedTempFile, path: &PathBuf) -> Result<(), ApiError> {
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(PersistError { error, .. }) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(already_there(path))
        }
        Err(PersistError { error, .. }) => Err(DiskError::new("write", path, error).into()),
    }
}

fn already_there(path: &Path) -> ApiError {
    let message = format!("{} exists already", path.display());
    ApiError::new(Code::Conflict, message).hint("Choose another name")
}

fn internal(error: tokio::task::JoinError) -> ApiError {
    ApiError::new(Code::Internal, format!("an upload was lost: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uploaded_file_has_a_plain_name() {
        assert_eq!(file_name("a b.txt").unwrap(), "a b.txt");
        for wrong in [
            "",
            "a/b",
            "..",
            ".hidden",
            "/etc/passwd",
            "a\nb",
            "x.qshare.part",
        ] {
            assert!(file_name(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_interrupted_upload_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let (buffers, arriving) = mpsc::channel(BUFFERS);
        buffers.try_send(Some(Bytes::from_static(b"half"))).unwrap();
        drop(buffers);
        assert!(write(dir.path(), &path, arriving).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_complete_upload_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for expected in [true, false] {
            let (buffers, arriving) = mpsc::channel(BUFFERS);
            buffers
                .try_send(Some(Bytes::from_static(b"whole")))
                .unwrap();
            buffers.try_send(None).unwrap();
            let file = write(dir.path(), &path, arriving).unwrap();
            assert_eq!(persist(file, &path).is_ok(), expected);
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
