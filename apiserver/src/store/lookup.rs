//! The store as the server's own parts read it.

use apimachinery::status::ApiError;
use futures::future::BoxFuture;

use super::{Store, Target, decode};
use crate::lookup::Lookup;
use crate::registry::Object;
use crate::storage::Freshness;

impl Lookup for Store {
    fn get<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Object>>, ApiError>> {
        Box::pin(async move {
            let resource = self.resources().preferred(group, resource)?;
            match Self::get(self, Target { resource, namespace, name }).await {
                Ok(object) => Ok(Some(object)),
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn list<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Box<dyn Object>>, ApiError>> {
        Box::pin(async move {
            let resource = self.resources().preferred(group, resource)?;
            let page = self.list_page(resource.info(), namespace, None, Freshness::Consistent, 0).await?;
            page.items.iter().map(|stored| decode(resource, &stored.value, stored.revision)).collect()
        })
    }
}
