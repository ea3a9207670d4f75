//! Reading `auth.oauth2` of a destination.

use super::destination::DestinationAuth;
use super::destination_file::url_of;
use super::secret::Secret;
use crate::campaign::yaml::Section;

/// What a URL of a destination may be; nothing where the key itself has a
/// problem.
#[derive(Debug, Clone, Copy)]
pub(super) struct UrlRules {
    /// Whether it may be `http://`.
    pub(super) allow_http: Option<bool>,
    /// Whether it may lead to this machine or a private network.
    pub(super) allow_private: Option<bool>,
}

/// Reads the section; the token URL obeys the destination's own rules.
pub(super) fn oauth2_of(mut section: Section, rules: UrlRules) -> Option<DestinationAuth> {
    let token_url = section.required("token_url");
    let token_url = token_url.and_then(|field| url_of("token_url", &field, rules));
    let client_id = section.required("client_id");
    let client_id = client_id.and_then(|field| field.filled_text().map(str::to_owned));
    let client_secret = section.required("client_secret");
    let client_secret = client_secret.and_then(|field| Secret::read(&field));
    let scope = section.optional("scope");
    let scope = scope.map_or(Some(None), |field| {
        field.filled_text().map(|text| Some(text.to_owned()))
    });
    section.finish();
    Some(DestinationAuth::OAuth2 {
        token_url: token_url?,
        client_id: client_id?,
        client_secret: client_secret?,
        scope: scope?,
    })
}
