import { mount } from 'svelte'
import './app.css'
import App from './App.svelte'
import { language, setLanguage } from './lib/i18n'
import { startRouter } from './lib/router'
import { applyTheme } from './lib/theme'

applyTheme()
setLanguage(language())
startRouter()
const target = document.getElementById('app')
if (target) mount(App, { target })
