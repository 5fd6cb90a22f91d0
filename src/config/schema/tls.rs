//! Keys of `server.tls`: certificates, their keys, and whose clients may come. The files are read, so
//! that a mistake in them is found before anything starts.

use std::path::PathBuf;

use crate::settings::{CertificateFiles, TlsSettings};
use crate::tls::Tls;

use super::super::reader::{At, Table};
use super::Context;

const TABLE: &str = "{ certificate = \"cert.pem\", key = \"key.pem\" }, or a list of such tables";

/// `tls = { … }` or `tls = [{ … }, { … }]`.
pub(super) fn tls(server: &mut Table<'_>, context: &Context<'_>) -> Option<TlsSettings> {
    let node = server.take("tls")?;
    let at = node.at.clone();
    let mut settings =
        TlsSettings { certificates: Vec::new(), client_ca: None, client_auth_optional: false };
    for (index, node) in server.to_nodes(node).into_iter().enumerate() {
        let mut table = server.open("tls", node, TABLE)?;
        let certificate = file(&mut table, "certificate", context);
        let key = file(&mut table, "key", context);
        if index == 0 {
            client_auth(&mut table, context, &mut settings);
        } else {
            for key in ["client_ca", "client_auth"] {
                if table.has(key) {
                    let at = table.at.clone();
                    let what = "holds for all certificates and stands with the first";
                    table.wrong(key, &at, what, "in the first table of `tls`");
                }
            }
        }
        table.finish();
        settings.certificates.push(CertificateFiles { certificate: certificate?, key: key? });
    }
    if settings.certificates.is_empty() {
        server.wrong("tls", &at, "is an empty list", TABLE);
        return None;
    }
    if let Err(error) = Tls::load(&settings, true) {
        let allowed = "PEM files: a certificate with its chain, and its private key, not encrypted";
        server.wrong("tls", &at, &format!("does not work: {error}"), allowed);
    }
    Some(settings)
}

/// A path; it has to be given.
fn file(table: &mut Table<'_>, key: &'static str, context: &Context<'_>) -> Option<PathBuf> {
    let stated = table.has(key);
    let Some(At { value, .. }) = table.text(key) else {
        if !stated {
            table.missing(key, "is missing", TABLE);
        }
        return None;
    };
    Some(context.folder.join(value))
}

fn client_auth(table: &mut Table<'_>, context: &Context<'_>, settings: &mut TlsSettings) {
    settings.client_ca = table.text("client_ca").map(|path| context.folder.join(path.value));
    let words = [("required", false), ("optional", true)];
    let auth = table.choice_if_any("client_auth", &words, &[]);
    if let (Some(auth), None) = (&auth, &settings.client_ca) {
        let what = "says nothing without `client_ca`: whose certificates?";
        table.wrong("client_auth", &auth.at, what, "`client_ca = \"ca.pem\"` beside it");
    }
    settings.client_auth_optional = auth.is_some_and(|auth| auth.value);
}
