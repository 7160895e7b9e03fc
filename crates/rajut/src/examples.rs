//! The built-in example, as it stands in `examples/clinic`.

/// The namespace of its documents without one.
pub(crate) const CLINIC_NAMESPACE: &str = "phoenix-guardian";

macro_rules! clinic {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../examples/clinic/", $name)))),*]
    };
}

/// File name and text.
pub(crate) const CLINIC: [(&str, &str); 12] = clinic![
    "api-gateway.yaml",
    "audit-log.yaml",
    "auth-service.yaml",
    "encounter-service.yaml",
    "mesh.yaml",
    "namespace.yaml",
    "notification-service.yaml",
    "patient-records.yaml",
    "prescription-service.yaml",
    "run.yaml",
    "subsets.yaml",
    "threat-detection.yaml",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_built_in() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/clinic");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| {
                std::path::Path::new(name)
                    .extension()
                    .is_some_and(|end| end == "yaml")
            })
            .collect();
        files.sort();
        let built_in: Vec<&str> = CLINIC.iter().map(|(name, _)| *name).collect();
        assert_eq!(files, built_in);
    }
}
