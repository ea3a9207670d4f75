//! Reading `client_cert_file` and `client_key_file` of a destination.

use crate::campaign::yaml::Section;
use crate::webhook::ClientCertificate;
use std::path::PathBuf;

/// Both files or neither; `check` opens none of them. Nothing where there is a
/// problem.
pub(super) fn client_certificate(section: &mut Section) -> Option<Option<ClientCertificate>> {
    let cert = section.optional("client_cert_file");
    let key = section.optional("client_key_file");
    match (cert, key) {
        (None, None) => Some(None),
        (Some(cert), Some(key)) => {
            let (cert, key) = (cert.filled_text(), key.filled_text());
            Some(Some(ClientCertificate {
                cert_file: PathBuf::from(cert?),
                key_file: PathBuf::from(key?),
            }))
        }
        (Some(cert), None) => {
            cert.error("`client_cert_file` needs `client_key_file` beside it");
            None
        }
        (None, Some(key)) => {
            key.error("`client_key_file` needs `client_cert_file` beside it");
            None
        }
    }
}
