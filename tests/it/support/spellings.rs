//! One cookie in every spelling that some cookie parser reads as that cookie.

/// Header lines, by the ids of the security catalogue.
pub(crate) fn spellings(name: &str, token: &str) -> Vec<Vec<u8>> {
    let (head, rest) = token.split_at(1);
    let (initial, tail) = (name.as_bytes()[0], &name[1..]);
    let upper = name.to_ascii_uppercase();
    let first = head.as_bytes()[0];
    let every: String = token.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let octal: String = token.bytes().map(|byte| format!("\\{byte:03o}")).collect();
    let mut lines: Vec<Vec<u8>> = [
        // as it is
        format!("Cookie: {name}={token}"),
        format!("cookie:{name}={token}"),
        // D05
        format!("Cookie: {name}=\"{token}\""),
        format!("Cookie: {name}= {token}"),
        format!("Cookie: {name} ={token}"),
        format!("Cookie: {name}={token} "),
        format!("Cookie: {name}={token}\t"),
        format!("Cookie: {name}={token},"),
        format!("Cookie: {name}={token};"),
        format!("Cookie: {name}={token} x"),
        format!("Cookie: {name}=\"{token}\" x"),
        format!("Cookie: {name}={token}\\"),
        // D06
        format!("Cookie: {name}=%{first:02x}{rest}"),
        format!("Cookie: {name}=%{first:02X}{rest}"),
        format!("Cookie: {name}=%25{first:02x}{rest}"),
        format!("Cookie: {name}={every}"),
        format!("Cookie: {name}=+{token}"),
        format!("Cookie: {name}={token}%00"),
        format!("Cookie: {name}={token}%00x"),
        format!("Cookie: {name}={token}%2500x"),
        format!("Cookie: %{initial:02x}{tail}={token}"),
        format!("Cookie: {name}=\"{octal}\""),
        format!("Cookie: {name}=\"\\{head}{rest}\""),
        format!("Cookie: {name}=\"\\{first:03o}{rest}\""),
        // D07
        format!("Cookie: $Version=1; {name}={token}; $Path=/"),
        format!("Cookie: $Version=\"1\"; {name}=\"{token}\"; $Path=\"/\""),
        format!("Cookie: x=\"; {name}={token}; y=\""),
        // D08
        format!("Cookie: a=1, {name}={token}"),
        format!("Cookie: ;;; {name}={token}"),
        format!("Cookie: a=1;{name}={token}"),
        format!("Cookie: a=1;\t{name}={token}"),
        format!("Cookie: a;{name}={token}"),
        format!("Cookie: a=1 {name}={token}"),
        format!("Cookie: a=1\t{name} = {token}"),
        format!("Cookie: {name}=other {name}={token}"),
        format!("Cookie: {name}=other,{name}={token}"),
        // D09
        format!("Cookie: {upper}={token}"),
        format!("Cookie: {name}[0]={token}"),
        format!("Cookie: __Host-{name}={token}"),
        // D11
        format!("Cookie: {name}={}", token.to_ascii_uppercase()),
        format!("Cookie: {name}={}", token.to_ascii_lowercase()),
        // more than one
        format!("Cookie: {name}={token}; {name}={token}"),
        format!("Cookie: {name}=other; {name}={token}"),
        format!("Cookie: {name}={token}; {name}=other"),
        format!("Cookie: {name}=; {name}={token}"),
        format!("Cookie: a=1\r\nCookie: {name}={token}"),
        format!("Cookie: a=\r\n {name}={token}"),
    ]
    .into_iter()
    .map(String::into_bytes)
    .collect();
    // D08: what some language's trim() takes for white space, around the name and the value
    for space in
        [&b"\x0b"[..], b"\x0c", b"\x1c", b"\x1f", b"\x85", b"\xa0", b"\xe2\x80\x80", b"\xc2\xa0"]
    {
        let (name, token) = (name.as_bytes(), token.as_bytes());
        lines.push([b"Cookie: ", space, name, b"=", token].concat());
        lines.push([b"Cookie: ", name, space, b"=", token].concat());
        lines.push([b"Cookie: ", name, b"=", space, token].concat());
        lines.push([b"Cookie: ", name, b"=", token, space].concat());
        lines.push([b"Cookie: a=1;", space, name, b"=", token].concat());
        lines.push([b"Cookie: a=1", space, name, b"=", token].concat());
    }
    lines
}
