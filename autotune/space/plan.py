"""The plan: the run that the recommended configuration is for."""

from __future__ import annotations

from dataclasses import dataclass, field

from autotune.space.keys import rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The run the user is going to do with the recommended configuration: the table [plan] of a space file.

    Exactly one of `tokens` (per run) and `target_loss` (nats per token) is positive. Prices are in
    the user's currency, written USD; `device_hour_usd` is for one device (rent, or depreciation on
    owned hardware) and `kwh_usd` applies to owned hardware only. With no price of a device-hour the
    plan is priced in device-hours.
    """

    tokens: int = field(default=0, metadata=rule("Training tokens of each run.", ge=0, le=10**15))
    target_loss: float = field(
        default=0.0,
        metadata=rule(
            "Train each run to this validation loss, in nats per token, instead of a number of tokens.",
            ge=0,
            allow_inf_nan=False,
        ),
    )
    runs: int = field(
        default=1,
        metadata=rule(
            "How many runs will use the recommended configuration: seeds, sweeps, ablations.", ge=1, le=10**6
        ),
    )
    devices: int = field(default=1, metadata=rule("Devices that each run trains on.", ge=1, le=10**6))
    device_hour_usd: float = field(
        default=0.0,
        metadata=rule(
            "Price of one device for one hour: rent, or depreciation of owned hardware. "
            "Without it the report counts in device-hours.",
            ge=0,
            allow_inf_nan=False,
        ),
    )
    engineer_hour_usd: float = field(
        default=0.0,
        metadata=rule(
            "Price of an engineer's hour. Above 0, each technique also has to pay for the work of adopting it.",
            ge=0,
            allow_inf_nan=False,
        ),
    )
    owned: bool = field(
        default=False, metadata=rule("Whether the hardware is yours, so that electricity is paid on top.")
    )
    kwh_usd: float = field(
        default=0.0, metadata=rule("Price of a kilowatt-hour, on owned hardware.", ge=0, allow_inf_nan=False)
    )
    pue: float = field(
        default=1.0,
        metadata=rule(
            "Power usage effectiveness of the data centre; 1 for a machine in a room.", ge=1, allow_inf_nan=False
        ),
    )
    device_watts: float = field(
        default=0.0,
        metadata=rule(
            "Power of one device, used where no energy meter can be read. The report then says: estimated.",
            ge=0,
            allow_inf_nan=False,
        ),
    )

    @property
    def currency(self) -> str:
        """The unit of every saving of this plan: `USD`, or `device-hours` if nothing is priced."""
        return "USD" if self.device_hour_usd > 0 else "device-hours"

    @property
    def pays_for_energy(self) -> bool:
        """Whether energy is priced separately: rent already includes it, device-hours are not money."""
        return self.owned and self.kwh_usd > 0 and self.device_hour_usd > 0
