//! Suppression asked again after staging.

use super::adapter::{SqlWarehouse, first_column};
use super::errors::error;
use super::staging::number;
use crate::history::{RunFacts, Withheld};
use crate::run::{WarehouseError, WarehouseErrorClass};

impl SqlWarehouse {
    /// Marks who is suppressed by now, outside the batches `except`.
    pub(super) async fn withhold_members(
        &self,
        run: &RunFacts,
        from: u32,
        except: &[u32],
    ) -> Result<(), WarehouseError> {
        let _turn = self.writer_turn().await;
        let mut session = self.pool.session().await?;
        let layout = self.layout(&mut session, run).await?;
        let key = layout
            .columns
            .iter()
            .find(|column| column.name.eq_ignore_ascii_case(&run.audience.key))
            .ok_or_else(|| {
                let message = "the run's frozen members have lost their key column";
                error(WarehouseErrorClass::Statement, message)
            })?;
        let statement = self.tables(run).withhold(key, from, except);
        session.run(&statement).await?;
        session.hand_back();
        Ok(())
    }

    /// Who has been withheld so far.
    pub(super) async fn members_withheld(
        &self,
        run: &RunFacts,
    ) -> Result<Withheld, WarehouseError> {
        let tables = self.tables(run);
        let mut session = self.pool.session().await?;
        let places = first_column(&mut session, &tables.places()).await?.pop();
        let members = first_column(&mut session, &tables.withheld()).await?;
        session.hand_back();
        Ok(Withheld {
            places: number(places.as_ref()),
            members: members.iter().map(|cell| number(Some(cell))).collect(),
        })
    }
}
