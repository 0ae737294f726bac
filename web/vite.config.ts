import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vitest/config'

// The pages are served by hemotorch itself, under a content security policy without any `unsafe-`:
// no inline script, no inline style, no eval, nothing from elsewhere.
export default defineConfig({
  plugins: [svelte()],
  build: {
    outDir: '../src/hemotorch/app/static',
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: 'es2022',
    // Left as it is written, light-dark() follows the color-scheme of a part of the page: the viewer is always dark.
    cssTarget: ['chrome123', 'firefox120', 'safari17.5'],
  },
  server: { proxy: { '/api': 'http://127.0.0.1:8080', '/open': 'http://127.0.0.1:8080' } },
  test: { include: ['src/**/*.test.ts'] },
})
