// SPDX-License-Identifier: MIT
/** @file What the program wants done about each signal. */
#pragma once

#include "libdune/dune.h"
#include "signals.h"

namespace dune::rt {

struct SignalAction {
    KernelSigaction wanted;  ///< by sigaction()
    dune_intr_cb callback;   ///< by dune_register_signal_handler(), which comes before
    bool monitor;            ///< for the monitor of ring 3
};

SignalAction signal_get(int sig) noexcept;

/** Neither SIG_DFL nor SIG_IGN. */
inline bool is_handler(const KernelSigaction& action) noexcept {
    return action.handler != reinterpret_cast<std::uintptr_t>(SIG_DFL) &&
           action.handler != reinterpret_cast<std::uintptr_t>(SIG_IGN);
}

/** SA_RESETHAND: as Linux has done with its own. */
void signal_reset(int sig) noexcept;

/** The monitor's callback. */
void monitor_signal(const siginfo_t& info) noexcept;

/** What Linux calls. */
void host_handler(int sig, siginfo_t* info, void* context) noexcept;

}  // namespace dune::rt
