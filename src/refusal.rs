//! Why a request is not answered by the app: a closed list of reason codes, each with its status.
//! Logs, metrics and our neutral pages use these; how a page looks is the business of `enforce.rs`.

use std::fmt;

use http::StatusCode;

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Downstream,
    Upstream,
    Internal,
    /// Nobody's: something of ours was asked for that is not to be had.
    Nobody,
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident $code:literal $status:ident $side:ident;)*) => {
        /// One reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Refusal { $($(#[$doc])* $name,)* }

        impl Refusal {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The stable code for logs and metrics.
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The status it is answered with.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// Whether the same request may succeed in a moment; the answer says when.
            pub fn may_come_again(self) -> bool {
                matches!(
                    self.status(),
                    StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
                )
            }

            /// Whose fault it is.
            pub fn side(self) -> Side {
                match self { $(Self::$name => Side::$side,)* }
            }
        }
    };
}

refusals! {
    /// The connection does not begin with a PROXY protocol header, or not from whom it may.
    ProxyProtocol "proxy_protocol" BAD_REQUEST Downstream;
    /// The TLS handshake failed or took too long.
    TlsHandshake "tls_handshake" BAD_REQUEST Downstream;
    /// HTTP where TLS is spoken.
    PlainHttp "plain_http" BAD_REQUEST Downstream;
    /// The head is not HTTP/1.
    MalformedHead "malformed_head" BAD_REQUEST Downstream;
    /// Another version of HTTP than 1.0 and 1.1.
    VersionUnsupported "version_unsupported" HTTP_VERSION_NOT_SUPPORTED Downstream;
    /// More HTTP/2 frames that ask for nothing than an honest client sends.
    Http2Flood "http2_flood" BAD_REQUEST Downstream;
    /// HTTP/1.1 without Host, or an empty one.
    HostMissing "host_missing" BAD_REQUEST Downstream;
    /// More than one Host.
    HostDuplicate "host_duplicate" BAD_REQUEST Downstream;
    /// Host is not `name[:port]`.
    HostInvalid "host_invalid" BAD_REQUEST Downstream;
    /// Host is none of those that are served, or not the name of the TLS handshake.
    HostUnknown "host_unknown" MISDIRECTED_REQUEST Downstream;
    /// The authority of an absolute target differs from Host.
    AuthorityMismatch "authority_mismatch" BAD_REQUEST Downstream;
    /// The target is not a path, or has userinfo or characters that no target has.
    TargetInvalid "target_invalid" BAD_REQUEST Downstream;
    /// A watched path in a spelling the app might read as that path.
    PathSpelling "path_spelling" BAD_REQUEST Downstream;
    /// Content-Length or Transfer-Encoding in a form that two parsers could read differently.
    FramingInvalid "framing_invalid" BAD_REQUEST Downstream;
    /// Trailer announces request trailers.
    RequestTrailers "request_trailers" BAD_REQUEST Downstream;
    /// Connection names an end-to-end header.
    ConnectionHeader "connection_header" BAD_REQUEST Downstream;
    /// Two different live sessions, or a dead and a live one, in one request.
    CredentialsAmbiguous "credentials_ambiguous" BAD_REQUEST Downstream;
    /// The name field of a login occurs twice, or is not decodable.
    LoginAmbiguous "login_ambiguous" BAD_REQUEST Downstream;
    /// The request body broke off or was malformed.
    BodyInvalid "body_invalid" BAD_REQUEST Downstream;
    /// A bearer token in a body that no live session has, and that may not pass.
    TokenUnknown "token_unknown" UNAUTHORIZED Downstream;
    /// CONNECT, TRACE, a method in small letters, or none of those that are let through.
    MethodRefused "method_refused" METHOD_NOT_ALLOWED Downstream;
    /// The head did not arrive in time.
    HeadTimeout "head_timeout" REQUEST_TIMEOUT Downstream;
    /// The body made no progress in time.
    BodyTimeout "body_timeout" REQUEST_TIMEOUT Downstream;
    /// A body larger than its limit.
    BodyTooLarge "body_too_large" PAYLOAD_TOO_LARGE Downstream;
    /// The target is longer than its limit.
    TargetTooLong "target_too_long" URI_TOO_LONG Downstream;
    /// A login body with a Content-Encoding.
    EncodingUnsupported "encoding_unsupported" UNSUPPORTED_MEDIA_TYPE Downstream;
    /// Expect with anything but 100-continue.
    ExpectationUnknown "expectation_unknown" EXPECTATION_FAILED Downstream;
    /// Too many or too large headers or cookies.
    HeadTooLarge "head_too_large" REQUEST_HEADER_FIELDS_TOO_LARGE Downstream;
    /// A login whose user cannot be found, with `unattributed = "refuse"`.
    LoginUnattributed "login_unattributed" FORBIDDEN Downstream;
    /// A login as another user than the one signed in, where the app lets only guests sign in.
    LoginOverSession "login_over_session" FORBIDDEN Downstream;
    /// A page of ours about somebody's sessions, and nobody is signed in.
    NotSignedIn "not_signed_in" UNAUTHORIZED Nobody;
    /// A form of ours that does not come from our page.
    FormForeign "form_foreign" FORBIDDEN Nobody;
    /// No page of ours, or no live session of this user.
    OwnUnknown "own_unknown" NOT_FOUND Nobody;
    /// A session was to be ended, but observing ends none.
    Observing "observing" CONFLICT Nobody;
    /// A session asked for our pages too often.
    TooManyCalls "too_many_calls" TOO_MANY_REQUESTS Nobody;
    /// Too many connections from one address.
    TooManyConnections "too_many_connections" TOO_MANY_REQUESTS Downstream;
    /// Too many requests at a time from one address over HTTP/2.
    TooManyStreams "too_many_streams" TOO_MANY_REQUESTS Downstream;
    /// Too many connections, or draining.
    Overloaded "overloaded" SERVICE_UNAVAILABLE Internal;
    /// The app could not be asked who somebody is, or too much was asked of it.
    ProbeFailed "probe_failed" SERVICE_UNAVAILABLE Upstream;
    /// The store failed or was too slow.
    StoreFailed "store_failed" SERVICE_UNAVAILABLE Internal;
    /// A panic or another defect of ours.
    InternalError "internal_error" INTERNAL_SERVER_ERROR Internal;
    /// The app could not be reached.
    UpstreamUnreachable "upstream_unreachable" BAD_GATEWAY Upstream;
    /// The app could not be believed over TLS, or does not speak it.
    UpstreamTls "upstream_tls" BAD_GATEWAY Upstream;
    /// The app closed or answered with something that is not HTTP.
    UpstreamInvalid "upstream_invalid" BAD_GATEWAY Upstream;
    /// The request as a whole took longer than it may.
    RequestTimeout "request_timeout" GATEWAY_TIMEOUT Internal;
    /// The app has as many requests as it may, and too many wait.
    UpstreamBusy "upstream_busy" SERVICE_UNAVAILABLE Upstream;
    /// The app did not answer in time.
    UpstreamTimeout "upstream_timeout" GATEWAY_TIMEOUT Upstream;
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl std::error::Error for Refusal {}
