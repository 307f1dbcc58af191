//! Image references: host, repository, tag, digest, as far as the kubelet must understand them. The grammar is the
//! distribution project's. Upstream's concept: `pkg/util/parsers`.

/// Why a text is no image reference, in upstream's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("couldn't parse image name: {0}")]
pub struct InvalidReference(&'static str);

const MAX_REPOSITORY: usize = 255;
const MAX_TAG: usize = 128;

fn split(image: &str) -> (&str, Option<&str>, Option<&str>) {
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    match rest.rfind(':') {
        // A colon before the last slash belongs to the host's port.
        Some(colon) if !rest[colon..].contains('/') => (&rest[..colon], Some(&rest[colon + 1..]), digest),
        _ => (rest, None, digest),
    }
}

/// The tag, if the reference has one.
#[must_use]
pub fn tag(image: &str) -> Option<&str> {
    split(image).1
}

/// The registry's host (Docker Hub's when none is named) and the path below it.
#[must_use]
pub fn host_and_path(image: &str) -> (String, String) {
    let repository = split(image).0;
    match repository.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => {
            (host.to_owned(), path.to_owned())
        }
        Some(_) => ("docker.io".to_owned(), repository.to_owned()),
        None => ("docker.io".to_owned(), format!("library/{repository}")),
    }
}

fn is_path_component(part: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    edge(part.chars().next())
        && edge(part.chars().next_back())
        && part.chars().all(inner)
        && !part.contains("..")
        && !part.contains("___")
}

fn is_host(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let port_ok = host.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok());
    port_ok
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '[' | ']' | ':'))
}

/// The reference with `:latest` where it has neither tag nor digest.
pub fn with_default_tag(image: &str) -> Result<String, InvalidReference> {
    let (repository, tag, digest) = split(image);
    if repository.is_empty() {
        return Err(InvalidReference("invalid reference format"));
    }
    if repository.len() > MAX_REPOSITORY {
        return Err(InvalidReference("repository name must not be more than 255 characters"));
    }
    let path = match repository.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => {
            if !is_host(host) {
                return Err(InvalidReference("invalid reference format"));
            }
            path
        }
        _ => repository,
    };
    if path.chars().any(|c| c.is_ascii_uppercase()) {
        return Err(InvalidReference("invalid reference format: repository name must be lowercase"));
    }
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let tag_ok = tag.is_none_or(|tag| {
        tag.len() <= MAX_TAG
            && tag.starts_with(word)
            && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'))
    });
    let digest_ok = digest.is_none_or(|digest| {
        digest.split_once(':').is_some_and(|(algorithm, hex)| {
            !algorithm.is_empty() && hex.len() >= 32 && hex.chars().all(|c| c.is_ascii_hexdigit())
        })
    });
    if !path.split('/').all(is_path_component) || !tag_ok || !digest_ok {
        return Err(InvalidReference("invalid reference format"));
    }
    Ok(if tag.is_none() && digest.is_none() { format!("{image}:latest") } else { image.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_tags() {
        let digest = format!("a/b@sha256:{}", "0".repeat(64));
        for (image, expected) in [
            ("busybox", Some("busybox:latest")),
            ("busybox:1.36", Some("busybox:1.36")),
            ("localhost:5000/a/b", Some("localhost:5000/a/b:latest")),
            ("registry.example/a_b/c-d.e:v1", Some("registry.example/a_b/c-d.e:v1")),
            (digest.as_str(), Some(digest.as_str())),
            ("", None),
            (":x", None),
            ("Upper", None),
            ("a//b", None),
            ("a/b:", None),
            ("a b", None),
            ("a@sha256:zz", None),
            ("-a", None),
            ("host.example:notaport/a", None),
        ] {
            assert_eq!(with_default_tag(image).ok().as_deref(), expected, "{image}");
        }
        assert!(with_default_tag(&"a".repeat(256)).is_err());
    }

    #[test]
    fn hosts() {
        for (image, host, path) in [
            ("busybox", "docker.io", "library/busybox"),
            ("user/app:1", "docker.io", "user/app"),
            ("quay.io/a/b@sha256:1", "quay.io", "a/b"),
            ("localhost/x", "localhost", "x"),
        ] {
            assert_eq!(host_and_path(image), (host.to_owned(), path.to_owned()), "{image}");
        }
    }
}
