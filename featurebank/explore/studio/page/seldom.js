// --- what is costly to ask is asked one at a time, and again only after ten times what it took ------------------------

export function seldom(patience, ask) {
  let isAsking = false, askedAt = 0, took = 0;
  return {
    isRested: () => performance.now() - askedAt > Math.max(patience, 10 * took),
    async now() {
      if (isAsking) return;
      isAsking = true;
      const started = performance.now();
      try { await ask(); } finally {
        askedAt = performance.now();
        took = askedAt - started;
        isAsking = false;
      }
    },
  };
}
