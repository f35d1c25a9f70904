//! A folder.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;

use super::{LakeError, Location};

pub(super) fn open(location: &Location) -> Result<(Arc<dyn ObjectStore>, Path, String), LakeError> {
    let wrong = |detail: String| LakeError::Address {
        url: location.url.clone(),
        detail,
    };
    let folder = if location.url.starts_with("file:") {
        let url = url::Url::parse(&location.url).map_err(|error| wrong(error.to_string()))?;
        url.to_file_path()
            .map_err(|()| wrong("it names no folder of this machine".into()))?
    } else if location.url.contains("://") {
        return Err(wrong("its kind is not known".into()));
    } else if location.url.is_empty() {
        return Err(wrong("it is empty".into()));
    } else {
        location.url.clone().into()
    };
    let unusable = |source| LakeError::Folder {
        folder: folder.display().to_string(),
        source,
    };
    std::fs::create_dir_all(&folder).map_err(unusable)?;
    let folder = folder.canonicalize().map_err(unusable)?;
    let store =
        LocalFileSystem::new_with_prefix(&folder).map_err(|error| wrong(error.to_string()))?;
    Ok((
        Arc::new(store),
        Path::default(),
        folder.display().to_string(),
    ))
}

/// Sees whether a folder may be written.
pub(super) fn check_writable(folder: &str) -> Result<(), LakeError> {
    tempfile::tempfile_in(folder)
        .map(drop)
        .map_err(|source| LakeError::Folder {
            folder: folder.into(),
            source,
        })
}
