"""What KVM does for the guest: SMCCC dispatch, PSCI, stolen time."""

from tracekit.hypervisor.hypervisor import Hypervisor

__all__ = ["Hypervisor"]
